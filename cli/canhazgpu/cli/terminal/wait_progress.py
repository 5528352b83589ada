"""Show what a command waits for."""

from __future__ import annotations

import shutil
import sys
from typing import TextIO

import click

from canhazgpu.cli.terminal.text import printable

CLEAR_LINE = "\r\x1b[K"


class WaitProgress:
    """`canhazgpu.allocation.progress.Progress` on standard error.

    On a terminal it redraws one line; elsewhere it prints a line for each change.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._in_place = self._stream.isatty()
        self._shown = ""

    def show(self, text: str, steady: str) -> None:
        """See `Progress.show`."""
        line = printable(text)
        if self._in_place:
            width = max(shutil.get_terminal_size().columns - 1, 20)
            if line != self._shown:
                self._write(f"{CLEAR_LINE}{line[:width]}")
                self._shown = line
        elif steady != self._shown:
            self._write(f"canhazgpu: {printable(steady)}\n")
            self._shown = steady

    def done(self) -> None:
        """See `Progress.done`."""
        if self._in_place and self._shown:
            self._write(CLEAR_LINE)
        self._shown = ""

    def _write(self, text: str) -> None:
        click.echo(text, file=self._stream, nl=False)
        self._stream.flush()
