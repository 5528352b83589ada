"""Print lines, columns and errors without the control characters that users may have put in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from canhazgpu.cli.terminal.text import printable, text_width
from canhazgpu.errors import InputError


def print_sanitized(text: str, *, err: bool = False) -> None:
    """Print the printable part of a line; with `err` on standard error."""
    click.echo(printable(text), err=err)


@contextmanager
def sanitized_errors() -> Iterator[None]:
    """Make the text of an `InputError` printable: it may contain names that users chose."""
    try:
        yield
    except InputError as exc:
        raise InputError(printable(str(exc))) from exc


def column_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Return the header and the printable part of the rows, each cell under its column."""
    table = [tuple(header), *(tuple(map(printable, row)) for row in rows)]
    widths = [max(map(text_width, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield " ".join(
            text + " " * (width - text_width(text)) for text, width in zip(row, widths, strict=True)
        ).rstrip()
