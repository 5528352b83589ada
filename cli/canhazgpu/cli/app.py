"""The dependencies of every command: the node's service, the configuration, the terminal.

The module imports nothing that takes long.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from canhazgpu.allocation.progress import Progress
    from canhazgpu.config import EffectiveConfig
    from canhazgpu.service.port import NodeService


def open_node_service(
    environ: Mapping[str, str], config_file: str | None, overrides: Mapping[str, str]
) -> NodeService:
    """Return the service of this node."""
    from canhazgpu.in_process.service import open_service  # noqa: PLC0415 - not for the help

    return open_service(environ, config_file, overrides)


def open_progress() -> Progress:
    """Return the progress display for somebody who waits."""
    from canhazgpu.cli.terminal.wait_progress import WaitProgress  # noqa: PLC0415 - few commands wait

    return WaitProgress()


def terminal_width() -> int | None:
    """Return the width of the terminal in columns, None if standard output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def terminal_height() -> int | None:
    """Return the height of the terminal in lines, None if standard output is no terminal."""
    return shutil.get_terminal_size().lines if sys.stdout.isatty() else None


class ExecuteInCallerError(BaseException):
    """The command is to be executed elsewhere: by the process for which this one works."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        super().__init__()
        self.command = tuple(command)
        self.environment = environment


def find_agent() -> str:
    """Return the socket of the agent that carries out this program's command, "" for none."""
    from canhazgpu.agent.command_client.main import agent_for  # noqa: PLC0415 - few commands ask it
    from canhazgpu.agent.command_client.words import words_of  # noqa: PLC0415

    return agent_for(words_of(sys.argv[1:]))


def find_absent_agent(environ: Mapping[str, str]) -> str:
    """Return the socket of an agent that does not run though this host has one, "" for none."""
    from canhazgpu.agent.agent_socket import absent_agent  # noqa: PLC0415 - after an error

    return absent_agent(environ)


def reads_terminal() -> bool:
    """Return whether the command talks to a terminal: it reads one, and writes to one."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def check_executable(command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Raise `CommandError` for a command that this process cannot execute."""
    from canhazgpu.people.command_exec import check_command  # noqa: PLC0415 - only to run one

    check_command(command, environ)


def execute_here(command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Execute the command in this process; raises `CommandError` where that fails."""
    from canhazgpu.people.command_exec import exec_command  # noqa: PLC0415 - only to run one

    exec_command(command, environ)


@dataclass(frozen=True, slots=True)
class App:
    """The dependencies of the commands, in ``ctx.obj``; tests give their own.

    `clock` is monotonic, in seconds. `config_file` and `overrides` are the options --config and
    --set. `check_command` and `execute` look at and execute a command of the user's, where the
    user's process is.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    config_file: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    open_service: Callable[[Mapping[str, str], str | None, Mapping[str, str]], NodeService] = (
        open_node_service
    )
    width: Callable[[], int | None] = terminal_width
    height: Callable[[], int | None] = terminal_height
    progress: Callable[[], Progress] = open_progress
    sleep: Callable[[float], None] = time.sleep
    agent: Callable[[], str] = find_agent
    absent_agent: Callable[[Mapping[str, str]], str] = find_absent_agent
    reads_terminal: Callable[[], bool] = reads_terminal
    check_command: Callable[[Sequence[str], Mapping[str, str]], None] = check_executable
    execute: Callable[[Sequence[str], Mapping[str, str]], NoReturn] = execute_here

    def service(self) -> NodeService:
        """Return the node's service; commands ask it for everything about GPUs."""
        return self.open_service(self.environ, self.config_file, self.overrides)

    def effective_config(self) -> EffectiveConfig:
        """Read the configuration in force, for commands about configuration and installation.

        Raises `ConfigError`. Help must not need a configuration: call this when a command runs.
        """
        from canhazgpu.config import load  # noqa: PLC0415 - not for the help

        return load(
            self.environ,
            file=self.config_file,
            overrides=self.overrides,
            refuses_misspelt_variables=False,
        )

    def ignored_variables_text(self) -> str:
        """Return one line that tells which variables CANHAZGPU_… mean nothing; empty for none."""
        if not any(name.startswith("CANHAZGPU_") for name in self.environ):
            return ""
        from canhazgpu.config.environment import ignored_variables_text  # noqa: PLC0415 - rarely needed

        return ignored_variables_text(self.environ)

    def with_options(self, config_file: str | None, overrides: Mapping[str, str]) -> App:
        """Return a copy with the global options of the command line."""
        return replace(self, config_file=config_file, overrides=overrides)
