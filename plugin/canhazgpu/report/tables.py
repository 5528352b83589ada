"""A report for people: two tables with bars, as wide as the terminal; pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from canhazgpu.report.totals import Report
from canhazgpu.report.usage_sum import UsageTotals

DEFAULT_WIDTH = 80
"""Columns without a terminal."""
GAP = "  "
COLUMNS = ("GPU HOURS", "SHARE", "IDLE HOURS")
USE_COLUMNS = ("MEAN USE", "PEAK MEMORY")
"""Further columns where the driver's accounting tells of any job."""
WASTED_COLUMNS = ("WASTED", *USE_COLUMNS)
"""Those of a report on what was wasted."""
MIN_BAR, MAX_BAR = 5, 40
"""Columns of the longest bar; with fewer columns than `MIN_BAR` there are no bars."""


class _TableRow(NamedTuple):
    name: str
    numbers: tuple[str, ...]
    reservations: str
    used: float

    @property
    def cells(self) -> tuple[str, ...]:
        return (self.name, *self.numbers, self.reservations)


def report_lines(
    report: Report, width: int | None, clean: Callable[[str], str] = str
) -> Iterator[str]:
    """Yield the lines; `width` is the terminal's, `clean` makes names safe to print."""
    for title, usages in (("USER", report.by_user), ("NODE", report.by_node)):
        rows = [_row(clean(name), one, clean, report) for name, one in usages.items()]
        yield from _table(
            title, (*COLUMNS, *_further_columns(report)), rows, width or DEFAULT_WIDTH
        )
        yield ""
    total = report.total
    yield (
        f"{total.gpu_hours:.1f} GPU hours, {total.idle_hours:.1f} of them idle,"
        f" in {_reservation_counts(total, clean) or 'no reservation'}"
    )


def _further_columns(report: Report) -> tuple[str, ...]:
    if report.wasted:
        return WASTED_COLUMNS
    return USE_COLUMNS if report.knows_use else ()


def _row(name: str, usage: UsageTotals, clean: Callable[[str], str], report: Report) -> _TableRow:
    numbers: tuple[str, ...] = (
        f"{usage.gpu_hours:.1f}",
        f"{usage.share:.0%}",
        f"{usage.idle_hours:.1f}",
    )
    if report.wasted:
        numbers = (*numbers, f"{usage.wasted_hours:.1f}")
    if report.wasted or report.knows_use:
        shares = (usage.mean_utilization, usage.peak_memory_share)
        numbers = (*numbers, *("-" if share is None else f"{share:.0%}" for share in shares))
    bar_of = usage.wasted_hours if report.wasted else usage.gpu_hours
    return _TableRow(name, numbers, _reservation_counts(usage, clean), bar_of)


def _table(
    title: str, names: tuple[str, ...], rows: Sequence[_TableRow], width: int
) -> Iterator[str]:
    header = _TableRow(title, names, "RESERVATIONS", 0.0)
    columns = zip(*(row.cells for row in (header, *rows)), strict=True)
    widths = [max(map(_display_width, column)) for column in columns]
    room = min(width - sum(widths) - len(GAP) * len(widths), MAX_BAR)
    most = max((row.used for row in rows), default=0.0)
    for row in (header, *rows):
        yield _line(row, widths, _bar(row.used, most, room))


def _line(row: _TableRow, widths: Sequence[int], bar: str) -> str:
    name, *numbers, reservations = zip(row.cells, widths, strict=True)
    cells = (
        _padded(*name, right=False),
        *(_padded(*number, right=True) for number in numbers),
        _padded(*reservations, right=False),
    )
    return GAP.join((*cells, bar)).rstrip()


def _bar(used: float, most: float, room: int) -> str:
    """Return a bar of at most `room` columns, and of one at least for any use."""
    # A damaged count may tell of less than nothing.
    if room < MIN_BAR or used <= 0:
        return ""
    return "#" * max(round(room * used / most), 1)


def _reservation_counts(usage: UsageTotals, clean: Callable[[str], str]) -> str:
    """Return ``12 slurm, 3 run``."""
    return ", ".join(f"{count} {clean(kind)}" for kind, count in usage.reservations.items())


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - _display_width(text))
    return space + text if right else text + space


def _display_width(text: str) -> int:
    """Return the columns a terminal needs: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )
