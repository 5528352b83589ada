"""The report's charts: lengths of bars for plain SVG; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canhazgpu.report.usage_sum import UsageTotals

MAX_BARS = 25
"""In a chart; the table below it has more."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its hours, and the lengths of its busy and its idle part in percent."""

    name: str
    hours: float
    idle_hours: float
    share: float
    reservations: str
    busy: float
    idle: float
    mean_utilization: float | None = None
    peak_memory_share: float | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """The longest bars, and how many there are beside them."""

    bars: tuple[Bar, ...]
    more: int


def chart_of(usages: Mapping[str, UsageTotals], most: int = MAX_BARS) -> Chart:
    """Return the chart of these totals, which are sorted already."""
    longest = max((one.gpu_hours for one in usages.values()), default=0.0) or 1.0
    bars = [
        Bar(
            name,
            one.gpu_hours,
            one.idle_hours,
            one.share,
            ", ".join(f"{count} {kind}" for kind, count in one.reservations.items()),
            round(100 * max(one.gpu_hours - one.idle_hours, 0.0) / longest, 2),
            round(100 * min(one.idle_hours, one.gpu_hours) / longest, 2),
            one.mean_utilization,
            one.peak_memory_share,
        )
        for name, one in list(usages.items())[:most]
    ]
    return Chart(tuple(bars), max(len(usages) - most, 0))
