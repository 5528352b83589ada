"""Lay out the table of the status for the width of the terminal."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import click

from canhazgpu.cli.terminal.text import printable, text_width, truncated
from canhazgpu.status.table_cells import WITHOUT_RESERVATION, Cells, Tone, Tones


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, its widths, its cells, and their tones (none: all are plain).

    `preferred_width` is the width if content and terminal allow it; it makes tables look alike.
    `least_width` is how far the column may be cut, None for a column that is never cut.
    """

    heading: str
    preferred_width: int
    least_width: int | None
    cells: tuple[str, ...]
    tones: tuple[Tone, ...] = ()

    @property
    def needed_width(self) -> int:
        """The width at which nothing is cut."""
        return max(map(text_width, (self.heading, *self.cells)))

    @property
    def least_width_with_pid(self) -> int | None:
        """How far the column may be cut so that the first PID of each cell stays whole."""
        found = ((text, _FIRST_PID.search(text)) for text in self.cells)
        # A blank before the "…" shows that the number has ended.
        ends = [text_width(text[: match.end()]) + len(" …") for text, match in found if match]
        return None if self.least_width is None else max([self.least_width, *ends])


HEADINGS = Cells("GPU", "STATUS", "USER", "DURATION", "TYPE", "MODEL", "DETAILS", "VALIDATION")
PREFERRED_WIDTHS = {
    "GPU": 3,
    "STATUS": 9,
    "USER": 8,
    "DURATION": 11,
    "TYPE": 7,
    "MODEL": 16,
    "UTIL": 4,
    "DETAILS": 26,
    "VALIDATION": 21,
}
LEAST_WIDTHS = {
    "USER": len("USER"),
    "MODEL": len("MODEL"),
    "DETAILS": len(WITHOUT_RESERVATION),
    "VALIDATION": len("VALIDATION"),
}
"""The columns that may be cut on a narrow terminal."""
OMITTED_FIRST = ("MODEL", "TYPE", "DURATION", "USER", "DETAILS")
"""The columns that a narrow terminal does without where they are empty, in this order."""

TONE_COLOURS = {Tone.FREE: "green", Tone.IN_USE: "yellow", Tone.ALARM: "red"}

_FIRST_PID = re.compile(r"PID \d+")
_KEPT_PIDS = ({"VALIDATION", "DETAILS"}, {"VALIDATION"}, {"DETAILS"})
"""The columns whose first PIDs are kept whole where there is room, the best choice first."""


def table_lines(
    rows: Sequence[Cells],
    terminal_width: int | None,
    *,
    cut: bool = True,
    tones: Sequence[Tones] = (),
    utilization: Sequence[str] = (),
) -> Iterator[str]:
    """Return the header, a line of dashes and the rows, each cell under its column.

    On a narrow terminal the columns shrink to their content. If that is not enough and `cut` is
    True, empty columns are omitted, then cells are cut and end in ``…``. `terminal_width` None cuts
    nothing. `tones` has an entry for each row; none means no colours. `utilization` has one for
    each row where the table has the column UTIL.
    """
    columns = _columns(rows, tones, utilization)
    if cut and terminal_width is not None:
        columns = _without_empty_columns(columns, terminal_width)
    widths = _column_widths(columns, terminal_width, cut=cut)
    # No column follows the last one, so its dashes need not be as long as its longest cell.
    dashes = ["-" * width for width in (*widths[:-1], min(widths[-1], columns[-1].preferred_width))]
    yield _line([one.heading for one in columns], widths)
    yield _line(dashes, widths)
    for place in range(len(rows)):
        row = [one.cells[place] for one in columns]
        yield _line(row, widths, [one.tones[place] if one.tones else Tone.PLAIN for one in columns])


def _columns(
    rows: Sequence[Cells], tones: Sequence[Tones], utilization: Sequence[str]
) -> list[Column]:
    cells = dict(zip(HEADINGS, zip(*rows, strict=True) if rows else [()] * 8, strict=True))
    headings = list(HEADINGS)
    if utilization:
        cells["UTIL"] = tuple(utilization)
        headings.insert(headings.index("DETAILS"), "UTIL")
    painted = {"STATUS": [one.status for one in tones], "DETAILS": [one.details for one in tones]}
    return [
        Column(
            heading,
            PREFERRED_WIDTHS[heading],
            LEAST_WIDTHS.get(heading),
            tuple(map(printable, cells[heading])),
            tuple(painted.get(heading, ())),
        )
        for heading in headings
    ]


def _without_empty_columns(columns: Sequence[Column], terminal_width: int) -> list[Column]:
    """Omit empty columns, as many as the terminal is too narrow for."""
    kept = list(columns)
    for heading in OMITTED_FIRST:
        if _table_width([one.needed_width for one in kept]) <= terminal_width:
            break
        kept = [one for one in kept if one.heading != heading or any(one.cells)]
    return kept


def _column_widths(
    columns: Sequence[Column], terminal_width: int | None, *, cut: bool
) -> list[int]:
    needed = [one.needed_width for one in columns]
    usual = [max(one.needed_width, one.preferred_width) for one in columns]
    if terminal_width is None or _table_width(usual) <= terminal_width:
        return usual
    if not cut or _table_width(needed) <= terminal_width:
        return needed
    for kept in _KEPT_PIDS:
        widths = _shrink_columns(columns, terminal_width, kept)
        if _table_width(widths) <= terminal_width:
            return widths
    return _shrink_columns(columns, terminal_width, frozenset())


def _table_width(widths: Sequence[int]) -> int:
    return sum(widths) + len(widths) - 1


def _shrink_columns(
    columns: Sequence[Column], terminal_width: int, kept_pids: Collection[str]
) -> list[int]:
    """Limit the columns that may be cut to one common width, the largest that fits the terminal.

    No column gets narrower than its least width.
    """
    limits = [
        (
            one.needed_width,
            one.least_width_with_pid if one.heading in kept_pids else one.least_width,
        )
        for one in columns
    ]

    def widths(share: int) -> list[int]:
        return [
            needed if least is None else min(needed, max(share, least)) for needed, least in limits
        ]

    fitting = (
        one for one in range(terminal_width, 0, -1) if _table_width(widths(one)) <= terminal_width
    )
    return widths(next(fitting, 0))


def _line(cells: Sequence[str], widths: Sequence[int], tones: Sequence[Tone] = ()) -> str:
    padded = []
    for place, (text, width) in enumerate(zip(cells, widths, strict=True)):
        shown = truncated(text, width)
        colour = TONE_COLOURS.get(tones[place] if tones else Tone.PLAIN)
        padded.append(_coloured(shown, colour) + " " * (width - text_width(shown)))
    return " ".join(padded).rstrip()


def _coloured(text: str, colour: str | None) -> str:
    return click.style(text, fg=colour) if text and colour else text
