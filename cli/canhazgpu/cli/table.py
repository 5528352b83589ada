"""The table that status prints, and what makes other people's names safe to print."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from canhazgpu.status.text import Cells

HEADER = Cells("GPU", "STATUS", "USER", "DURATION", "TYPE", "MODEL", "DETAILS", "VALIDATION")
USUAL_WIDTHS = (3, 9, 8, 11, 7, 16, 26, 21)
"""The columns' widths where content and terminal allow them, so that tables look alike."""

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # control sequences
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f]).*?(?:\x07|\x1b\\|\x9c|$)"  # strings to the terminal
    r"|\x1b[ -/]*[0-~]?",
    re.DOTALL,
)


def printable(text: str) -> str:
    """Return the text on one line without anything that a terminal would obey.

    Names of users, jobs and processes are chosen by users. Escape sequences go as a whole; control
    characters, line and paragraph separators, and what changes the direction of writing go too.
    """
    plain = _ESCAPES.sub("", text)
    return "".join(one for one in plain if unicodedata.category(one) not in _UNSAFE)


_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def table_lines(rows: Sequence[Cells], terminal_width: int | None) -> Iterator[str]:
    """Return the header, a line of dashes and the rows, each cell under its column.

    No cell is ever cut: in a narrow terminal the columns shrink to their content.
    """
    table = [HEADER, *(Cells(*map(printable, row)) for row in rows)]
    needed = [max(map(_width, column)) for column in zip(*table, strict=True)]
    widths = [max(pair) for pair in zip(needed, USUAL_WIDTHS, strict=True)]
    if terminal_width is not None and sum(widths) + len(widths) - 1 > terminal_width:
        widths = needed
    dashes = Cells(*("-" * width for width in widths))
    for row in (HEADER, dashes, *table[1:]):
        yield " ".join(map(_padded, row, widths)).rstrip()


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _width(text: str) -> int:
    """Return the columns a terminal needs: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )
