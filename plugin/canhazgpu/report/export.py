"""A report as data for programs: a dictionary for JSON, and rows for CSV; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from canhazgpu.report.totals import Report
from canhazgpu.report.usage_sum import UsageTotals
from canhazgpu.status.json_format import iso_time

RESERVATION_TYPES = ("slurm", "run", "manual")
"""The types of reservations with a column of their own."""

CSV_COLUMNS = (
    "user", "node", "gpu_hours", "share", "idle_hours", "reservations", *RESERVATION_TYPES, "other",
    "mean_utilization", "peak_memory_share",
)  # fmt: skip
WASTED_COLUMNS = ("wasted_hours",)
"""Further columns of a report on what was wasted; keys, too."""
USAGE_KEYS = (
    "gpu_hours", "share", "idle_hours", "reservations", "reservations_by_type",
    "mean_utilization", "peak_memory_share",
)  # fmt: skip
"""The keys of totals, in their order."""
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class UsageList(NamedTuple):
    """A list of a report: its key, and the totals of each group, which has names with keys."""

    key: str
    name_keys: tuple[str, ...]
    groups: Iterable[tuple[tuple[str, ...], UsageTotals]]


def report_to_dict(report: Report) -> dict[str, Any]:
    """Return the whole report; programs rely on the keys. Times are of the clock of Redis."""
    return {
        **report_head(report),
        **{
            one.key: [
                {**dict(zip(one.name_keys, names, strict=True)), **_usage_to_dict(report, usage)}
                for names, usage in one.groups
            ]
            for one in report_lists(report)
        },
    }


def report_head(report: Report) -> dict[str, Any]:
    """Return what a report begins with, before its lists."""
    return {
        "since": iso_time(report.span.since),
        "until": iso_time(report.span.until),
        "total": _usage_to_dict(report, report.total),
    }


def report_lists(report: Report) -> Iterator[UsageList]:
    """Yield the lists of a report."""
    users = (((name,), one) for name, one in report.by_user.items())
    nodes = (((name,), one) for name, one in report.by_node.items())
    yield UsageList("users", ("user",), users)
    yield UsageList("nodes", ("node",), nodes)
    yield UsageList("users_on_nodes", ("user", "node"), report.by_user_and_node())


def usage_keys(report: Report) -> tuple[str, ...]:
    """Return the keys of what everybody and everything has in a report, in their order."""
    return (*USAGE_KEYS, *(WASTED_COLUMNS if report.wasted else ()))


def usage_values(usage: UsageTotals, by_type: object, *, wasted: bool) -> tuple[object, ...]:
    """Return the values of `usage_keys`; `by_type` stands for the reservations by type."""
    values = (
        round(usage.gpu_hours, 4),
        round(usage.share, 4),
        round(usage.idle_hours, 4),
        usage.reservation_count,
        by_type,
        _rounded(usage.mean_utilization),
        _rounded(usage.peak_memory_share),
    )
    return (*values, round(usage.wasted_hours, 4)) if wasted else values


def _usage_to_dict(report: Report, usage: UsageTotals) -> dict[str, Any]:
    values = usage_values(usage, dict(usage.reservations), wasted=report.wasted)
    return dict(zip(usage_keys(report), values, strict=True))


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def report_rows(report: Report, clean: Callable[[str], str] = str) -> Iterator[tuple[str, ...]]:
    """Yield the header and one row for each user on each node; `clean` makes names safe to print.

    A name that a spreadsheet would read as a formula gets an apostrophe before it.
    """
    yield (*CSV_COLUMNS, *(WASTED_COLUMNS if report.wasted else ()))
    # Of very many names few differ.
    cell = cache(lambda name: escape_formula(clean(name)))
    for (user, node), usage in report.by_user_and_node():
        counts = [usage.reservations.get(one, 0) for one in RESERVATION_TYPES]
        total = usage.reservation_count
        yield (
            cell(user),
            cell(node),
            f"{usage.gpu_hours:.4f}",
            f"{usage.share:.4f}",
            f"{usage.idle_hours:.4f}",
            *map(str, (total, *counts, total - sum(counts))),
            *_use_cells(usage),
            *((f"{usage.wasted_hours:.4f}",) if report.wasted else ()),
        )


def _use_cells(usage: UsageTotals) -> Iterator[str]:
    for share in (usage.mean_utilization, usage.peak_memory_share):
        yield "" if share is None else f"{share:.4f}"


def escape_formula(text: str) -> str:
    """Return the text as a cell that no spreadsheet reads as a formula."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA_STARTS) else text
