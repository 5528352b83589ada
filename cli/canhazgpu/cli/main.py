"""The program `canhazgpu`: registers the commands, and imports each when it is used."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Collection, Mapping
from copy import copy
from importlib import import_module
from typing import Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.command_group import CommandGroup
from canhazgpu.cli.exit_codes import EXIT_INTERRUPTED, exit_codes
from canhazgpu.cli.options.common import config_option, set_option
from canhazgpu.cli.suggestions import ARGUMENTS, explained_option_error
from canhazgpu.cli.terminal.text import printable
from canhazgpu.cli.version import VERSION
from canhazgpu.errors import (
    AgentError,
    CanhazgpuError,
    CommandError,
    ConfigError,
    NodeStateError,
    ScanError,
    StoreError,
    UnavailableError,
    advice_for,
    error_text,
)

COMMANDS = {
    "admin": "canhazgpu.cli.commands.admin.group:admin",
    "agent": "canhazgpu.cli.commands.agent.group:agent",
    "completion": "canhazgpu.cli.commands.completion:completion",
    "config": "canhazgpu.cli.commands.config:config",
    "events": "canhazgpu.cli.commands.events:events",
    "explain": "canhazgpu.cli.commands.explain:explain_job",
    "extend": "canhazgpu.cli.commands.extend:extend",
    "hooks": "canhazgpu.cli.commands.hooks.group:hooks",
    "queue": "canhazgpu.cli.commands.queue:queue",
    "release": "canhazgpu.cli.commands.release:release",
    "report": "canhazgpu.cli.commands.report:report",
    "reserve": "canhazgpu.cli.commands.reserve:reserve",
    "run": "canhazgpu.cli.commands.run:run",
    "status": "canhazgpu.cli.commands.status:status",
    "store": "canhazgpu.cli.commands.store.group:store",
    "validate": "canhazgpu.cli.commands.validate:validate",
    "web": "canhazgpu.cli.commands.web:web",
}
"""Each command, with its module and its name there."""


class LazyGroup(CommandGroup):
    """A group that imports its commands by name, and prints an error as one line."""

    def __init__(self, *args: Any, lazy: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def restricted_to(self, names: Collection[str]) -> LazyGroup:
        """Return this group without all commands but these: it finds no other one."""
        group = copy(self)
        group._lazy = {name: where for name, where in self._lazy.items() if name in names}
        group.commands = {name: one for name, one in self.commands.items() if name in names}
        return group

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See `click.Group.list_commands`."""
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See `click.Group.get_command`."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, name = self._lazy[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See `click.Group.parse_args`."""
        ctx.meta[ARGUMENTS] = tuple(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as exc:
            raise explained_option_error(exc) from exc

    def invoke(self, ctx: click.Context) -> Any:
        """See `click.Group.invoke`; turns a `CanhazgpuError` into one line and an exit status."""
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as exc:
            raise explained_option_error(exc) from exc
        except CanhazgpuError as exc:
            click.ClickException(printable(error_text(exc))).show()
            _tell_of_absent_agent(ctx, exc)
            status = exc.exit_code if isinstance(exc, CommandError) else advice_for(exc).exit_code
            raise click.exceptions.Exit(status) from exc
        except KeyboardInterrupt:
            click.echo(err=True)
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


def _tell_of_absent_agent(context: click.Context, error: CanhazgpuError) -> None:
    """Say that the node's agent does not run, where a user's own way ended at the store."""
    if not isinstance(error, StoreError | ConfigError) or os.geteuid() == 0:
        return
    app: App = context.obj or App()
    if path := app.absent_agent(app.environ):
        click.echo(
            f"canhazgpu: nobody listens at {printable(path)}: this node's agent does not run;"
            " an administrator starts it, as with 'systemctl start canhazgpu-agent'",
            err=True,
        )


def _show_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    click.echo(f"canhazgpu {VERSION}")
    context.exit()


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    epilog=exit_codes(
        ScanError,
        StoreError,
        NodeStateError,
        AgentError,
        UnavailableError,
        others={0: "done; 'canhazgpu COMMAND --help' says what each command's mean"},
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@config_option
@set_option
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def cli(context: click.Context, config_file: str | None, overrides: Mapping[str, str]) -> None:
    """Reserve GPUs for Slurm jobs and people, and check what the GPUs really do.

    \b
    Examples:
      canhazgpu status
      canhazgpu --config ./canhazgpu.toml config show
      canhazgpu --set store.url=redis://head:6379/0 status --json
    """  # noqa: D301 - click reads the character: keep these lines
    app: App = (context.obj or App()).with_options(config_file, overrides)
    context.obj = app
    if ignored := app.ignored_variables_text():
        click.echo(f"canhazgpu: {printable(ignored)}", err=True)


def main() -> None:
    """Run the command line; the entry point of the installed program."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal's encoding lacks must not end the program.
        with contextlib.suppress(AttributeError, io.UnsupportedOperation):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        cli(prog_name="canhazgpu")
    except SystemExit as exc:
        if exc.code != EXIT_INTERRUPTED:
            raise
        # End by the signal itself: after an ordinary exit a shell would go on with its script.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)


def _open_closed_streams() -> None:
    """Open /dev/null for each closed standard stream, so that no other file gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # The lowest free number is the stream's, because the streams before it are open.
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: PTH123, SIM115


if __name__ == "__main__":
    main()
