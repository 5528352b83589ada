"""How the agent has a command carried out that somebody typed: the port to the command line.

The agent is below the commands and imports none of them; whoever starts it gives it a runner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TextIO

from canhazgpu.agent.wire.command_line import CommandLine
from canhazgpu.allocation.progress import Progress
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.service.port import NodeService


@dataclass(frozen=True, slots=True)
class Execution:
    """A command for the caller to execute in its own place, with these variables set."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


class CommandRunner(Protocol):
    """Carries out commands in a handler."""

    def preload(self) -> None:
        """Import everything that a command may need."""
        ...

    def changes_something(self, arguments: tuple[str, ...]) -> bool:
        """Return whether the command may change anything; one that only looks may go on."""
        ...

    def is_of_person(self, arguments: tuple[str, ...]) -> bool:
        """Return whether a person typed it, who reads what is said beside the answer."""
        ...

    def open_progress(self, errors: TextIO) -> Progress:
        """Return the display of a wait, on this standard error."""
        ...

    def run(self, line: CommandLine, open_service: Callable[[], NodeService]) -> int | Execution:
        """Return the command's exit status, or what the caller is to execute.

        It writes to `sys.stdout` and `sys.stderr`, and raises nothing that a user's mistake causes.
        """
        ...
