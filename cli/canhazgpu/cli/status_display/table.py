"""Lay out the table of the status for the width of the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import click

from canhazgpu.cli.terminal.text import printable, text_width, truncated
from canhazgpu.status.table_cells import WITHOUT_RESERVATION, Cells, Tone, Tones

HEADER = Cells("GPU", "STATUS", "USER", "DURATION", "TYPE", "MODEL", "DETAILS", "VALIDATION")
PREFERRED_WIDTHS = (3, 9, 8, 11, 7, 16, 26, 21)
"""The columns' widths if content and terminal allow them; they make tables look alike."""

STATUS, DETAILS = HEADER.index("STATUS"), HEADER.index("DETAILS")
MIN_FLEXIBLE_WIDTHS = {
    HEADER.index("USER"): len("USER"),
    HEADER.index("MODEL"): len("MODEL"),
    HEADER.index("DETAILS"): len(WITHOUT_RESERVATION),
    HEADER.index("VALIDATION"): len("VALIDATION"),
}
"""The columns that may be cut on a narrow terminal, with their least widths."""

TONE_COLOURS = {Tone.FREE: "green", Tone.IN_USE: "yellow", Tone.ALARM: "red"}

RowTones = Mapping[int, Tone]
"""The tones of one row, by column."""


def table_lines(
    rows: Sequence[Cells],
    terminal_width: int | None,
    *,
    cut: bool = True,
    tones: Sequence[Tones] = (),
) -> Iterator[str]:
    """Return the header, a line of dashes and the rows, each cell under its column.

    On a narrow terminal the columns shrink to their content. If that is not enough and `cut` is
    True, the flexible columns are cut, and cut cells end in ``…``. `terminal_width` None cuts
    nothing. `tones` has an entry for each row; none means no colours.
    """
    table = [Cells(*map(printable, row)) for row in rows]
    needed = [max(map(text_width, column)) for column in zip(HEADER, *table, strict=True)]
    widths = _column_widths(needed, terminal_width, cut=cut)
    # No column follows the last one, so its dashes need not be as long as its longest cell.
    dashes = ["-" * width for width in (*widths[:-1], min(widths[-1], PREFERRED_WIDTHS[-1]))]
    yield _line(HEADER, widths)
    yield _line(dashes, widths)
    for place, row in enumerate(table):
        yield _line(row, widths, _row_tones(tones[place]) if tones else {})


def _column_widths(needed: list[int], terminal_width: int | None, *, cut: bool) -> list[int]:
    usual = [max(pair) for pair in zip(needed, PREFERRED_WIDTHS, strict=True)]
    if terminal_width is None or _table_width(usual) <= terminal_width:
        return usual
    if not cut or _table_width(needed) <= terminal_width:
        return needed
    return _shrink_flexible_columns(needed, terminal_width)


def _table_width(widths: Sequence[int]) -> int:
    return sum(widths) + len(widths) - 1


def _shrink_flexible_columns(needed: list[int], terminal_width: int) -> list[int]:
    """Limit the flexible columns to one common width, the largest that fits the terminal.

    No column gets narrower than its heading, and DETAILS always has room for WITHOUT RESERVATION.
    """

    def widths(share: int) -> list[int]:
        return [
            min(width, max(share, MIN_FLEXIBLE_WIDTHS[place]))
            if place in MIN_FLEXIBLE_WIDTHS
            else width
            for place, width in enumerate(needed)
        ]

    fitting = (
        one for one in range(terminal_width, 0, -1) if _table_width(widths(one)) <= terminal_width
    )
    return widths(next(fitting, 0))


def _row_tones(tones: Tones) -> RowTones:
    return {STATUS: tones.status, DETAILS: tones.details}


def _line(cells: Sequence[str], widths: Sequence[int], paint: RowTones | None = None) -> str:
    padded = []
    for place, (text, width) in enumerate(zip(cells, widths, strict=True)):
        shown = truncated(text, width)
        colour = TONE_COLOURS.get((paint or {}).get(place, Tone.PLAIN))
        padded.append(_coloured(shown, colour) + " " * (width - text_width(shown)))
    return " ".join(padded).rstrip()


def _coloured(text: str, colour: str | None) -> str:
    return click.style(text, fg=colour) if text and colour else text
