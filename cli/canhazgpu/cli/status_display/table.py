"""The table that status prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import click

from canhazgpu.cli.terminal.text import printable, text_width, truncated
from canhazgpu.status.table_cells import WITHOUT_RESERVATION, Cells, Tone, Tones

HEADER = Cells("GPU", "STATUS", "USER", "DURATION", "TYPE", "MODEL", "DETAILS", "VALIDATION")
PREFERRED_WIDTHS = (3, 9, 8, 11, 7, 16, 26, 21)
"""The columns' widths where content and terminal allow them, so that tables look alike."""

STATUS, DETAILS = HEADER.index("STATUS"), HEADER.index("DETAILS")
MIN_FLEXIBLE_WIDTHS = {
    HEADER.index("USER"): len("USER"),
    HEADER.index("MODEL"): len("MODEL"),
    HEADER.index("DETAILS"): len(WITHOUT_RESERVATION),
    HEADER.index("VALIDATION"): len("VALIDATION"),
}
"""The columns that are cut where the terminal is too narrow for all, and what is left of each."""

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

    In a narrow terminal the columns shrink to their content; where that is not enough and `cut`
    allows it, the flexible ones share what is left, and what does not fit ends in ``…``. Without
    a terminal nothing is cut. `tones`, one for each row, makes it coloured; colour takes no width.
    """
    table = [Cells(*map(printable, row)) for row in rows]
    needed = [max(map(text_width, column)) for column in zip(HEADER, *table, strict=True)]
    widths = _column_widths(needed, terminal_width, cut=cut)
    # Nothing stands beside the last column: its dashes need not follow what is long in it.
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
    """Give the flexible columns fair shares of the terminal, and none more than it needs.

    However narrow the terminal is, each keeps its heading, and WITHOUT RESERVATION is whole.
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
