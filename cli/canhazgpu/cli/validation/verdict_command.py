"""A command whose exit code is a verdict; no failure of it may look like another verdict."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from canhazgpu.cli.suggestions import explained_option_error
from canhazgpu.cli.terminal.output import print_sanitized
from canhazgpu.cli.validation.report import internal_error_finding
from canhazgpu.status.findings import Verdict

_CLICK_CONTROL_FLOW = (click.exceptions.Exit, click.Abort)


class VerdictCommand(click.Command):
    """A command that exits with `Verdict.CANNOT_TELL` on every failure, as a misspelt option."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """See `click.Command.make_context`."""
        with _exit_cannot_tell_on_error():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """See `click.Command.invoke`."""
        with _exit_cannot_tell_on_error():
            return super().invoke(ctx)


@contextmanager
def _exit_cannot_tell_on_error() -> Iterator[None]:
    """Exit with `Verdict.CANNOT_TELL` on any error inside the block."""
    try:
        yield
    except _CLICK_CONTROL_FLOW:
        raise
    except click.ClickException as exc:
        # Its own exit code, 2 for a misspelt option, would be another verdict.
        shown = explained_option_error(exc) if isinstance(exc, click.NoSuchOption) else exc
        shown.show()
        raise click.exceptions.Exit(int(Verdict.CANNOT_TELL)) from exc
    except Exception as exc:
        print_sanitized(f"Error: {internal_error_finding(exc).text}", err=True)
        _discard_unwritable_output()
        raise click.exceptions.Exit(int(Verdict.CANNOT_TELL)) from exc


def _discard_unwritable_output() -> None:
    """Drop what a full disk did not take: Python would try again, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = io.StringIO()
