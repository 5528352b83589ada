"""A report as data for programs: a dictionary for JSON, and rows for CSV; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from canhazgpu.report.totals import Report, UsageTotals
from canhazgpu.status.json_format import iso_time

RESERVATION_TYPES = ("slurm", "run", "manual")
"""The types of reservations with a column of their own."""

CSV_COLUMNS = (
    "user", "node", "gpu_hours", "share", "idle_hours", "reservations", *RESERVATION_TYPES, "other",
    "mean_utilization", "peak_memory_share",
)  # fmt: skip
WASTED_COLUMNS = ("wasted_hours",)
"""Further columns of a report on what was wasted."""
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def report_to_dict(report: Report) -> dict[str, Any]:
    """Return the whole report; programs rely on the keys. Times are of the clock of Redis."""
    to_dict = _wasted_to_dict if report.wasted else _usage_to_dict
    return {
        "since": iso_time(report.span.since),
        "until": iso_time(report.span.until),
        "total": to_dict(report.total),
        "users": [{"user": name, **to_dict(one)} for name, one in report.by_user.items()],
        "nodes": [{"node": name, **to_dict(one)} for name, one in report.by_node.items()],
        "users_on_nodes": [
            {"user": user, "node": node, **to_dict(one)}
            for (user, node), one in report.by_user_and_node().items()
        ],
    }


def _usage_to_dict(usage: UsageTotals) -> dict[str, Any]:
    return {
        "gpu_hours": round(usage.gpu_hours, 4),
        "share": round(usage.share, 4),
        "idle_hours": round(usage.idle_hours, 4),
        "reservations": usage.reservation_count,
        "reservations_by_type": dict(usage.reservations),
        "mean_utilization": _rounded(usage.mean_utilization),
        "peak_memory_share": _rounded(usage.peak_memory_share),
    }


def _wasted_to_dict(usage: UsageTotals) -> dict[str, Any]:
    return {
        **_usage_to_dict(usage),
        "wasted_hours": round(usage.wasted_hours, 4),
    }


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def report_rows(report: Report, clean: Callable[[str], str] = str) -> Iterator[tuple[str, ...]]:
    """Yield the header and one row for each user on each node; `clean` makes names safe to print.

    A name that a spreadsheet would read as a formula gets an apostrophe before it.
    """
    yield (*CSV_COLUMNS, *(WASTED_COLUMNS if report.wasted else ()))
    for (user, node), usage in report.by_user_and_node().items():
        counts = [usage.reservations.get(one, 0) for one in RESERVATION_TYPES]
        total = usage.reservation_count
        yield (
            escape_formula(clean(user)),
            escape_formula(clean(node)),
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
