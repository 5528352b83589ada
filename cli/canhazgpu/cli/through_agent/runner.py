"""Carry out a command in the agent's handler: parse it, ask the service, write what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn, TextIO

import click

from canhazgpu.agent.command_client.words import AGENT_COMMANDS
from canhazgpu.agent.command_runner import Execution
from canhazgpu.agent.wire.command_line import CommandLine
from canhazgpu.allocation.progress import Progress
from canhazgpu.cli.app import App, ExecuteInCallerError
from canhazgpu.cli.exit_codes import EXIT_INTERRUPTED
from canhazgpu.cli.main import cli
from canhazgpu.cli.terminal.wait_progress import WaitProgress
from canhazgpu.cli.through_agent.page_answers import PAGE, page_answers
from canhazgpu.errors import InputError
from canhazgpu.service.port import NodeService

LOOKS = frozenset({"status", "queue", "events", "explain", "report"})
FOR_OTHERS = cli.restricted_to(AGENT_COMMANDS)
FOR_OTHERS.add_command(page_answers)
LOCAL_PACKAGES = frozenset({"agent", "hook_site", "hooks", "store", "through_agent", "web"})
"""Folders, and commands, of what is never carried out for somebody else.

The pages import libraries that only an extra brings."""
LIBRARIES = (
    "click.shell_completion",
    "click._textwrap",
    "textwrap",
    "shutil",
    "gettext",
)
"""What click imports when it is used."""


class ClickRunner:
    """`CommandRunner` by the program's own commands."""

    def preload(self) -> None:
        """See `CommandRunner.preload`."""
        for name in (*_modules(), *LIBRARIES):
            import_module(name)

    def changes_something(self, arguments: tuple[str, ...]) -> bool:
        """See `CommandRunner.changes_something`."""
        if not self.is_of_person(arguments):
            return False
        return next((one for one in arguments if one in AGENT_COMMANDS), "") not in LOOKS

    def is_of_person(self, arguments: tuple[str, ...]) -> bool:
        """See `CommandRunner.is_of_person`."""
        return arguments[:1] != (PAGE,)

    def open_progress(self, errors: TextIO) -> Progress:
        """See `CommandRunner.open_progress`."""
        return WaitProgress(errors)

    def run(self, line: CommandLine, open_service: Callable[[], NodeService]) -> int | Execution:
        """See `CommandRunner.run`."""
        app = _app_for(line, open_service)
        try:
            status = FOR_OTHERS.main(
                list(line.arguments),
                prog_name="canhazgpu",
                standalone_mode=False,
                obj=app,
                terminal_width=line.terminal.width,
            )
        except ExecuteInCallerError as exc:
            return Execution(exc.command, exc.environment)
        except click.ClickException as exc:
            exc.show()
            return exc.exit_code
        except click.Abort:
            return EXIT_INTERRUPTED
        except SystemExit as exc:
            return exc.code if isinstance(exc.code, int) else 0
        return status if isinstance(status, int) else 0


def _app_for(line: CommandLine, open_service: Callable[[], NodeService]) -> App:
    def open_given(
        _environ: Mapping[str, str], config_file: str | None, overrides: Mapping[str, str]
    ) -> NodeService:
        if config_file is not None or overrides:
            raise InputError(
                "this node's agent decides by its own configuration, whatever --config and --set"
                " say: leave them out"
            )
        return open_service()

    def execute(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
        raise ExecuteInCallerError(command, environment)

    return App(
        environ=line.variables,
        open_service=open_given,
        width=lambda: line.terminal.width,
        height=lambda: line.terminal.height,
        check_command=lambda _command, _environ: None,
        execute=execute,
        agent=lambda: "",
        absent_agent=lambda _environ: "",
        reads_terminal=lambda: line.terminal.reads_terminal,
    )


def _modules() -> Iterator[str]:
    """Yield the modules of the commands that are carried out for others."""
    root = Path(__file__).parent.parent
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root).with_suffix("")
        if not LOCAL_PACKAGES.intersection(relative.parts):
            yield ".".join(("canhazgpu.cli", *relative.parts))
