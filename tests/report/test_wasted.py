"""A report on what jobs made of their GPUs."""

from __future__ import annotations

from typing import Any

import pytest

from canhazgpu.ledger.values import Claim, Event, NodeView
from canhazgpu.report.export import report_rows, report_to_dict
from canhazgpu.report.held_time import OwnerUse, TimeSpan, held_times, owner_use
from canhazgpu.report.node_rows import UsedOnNode
from canhazgpu.report.tables import report_lines
from canhazgpu.report.totals import Report, build_report

HOUR = 3600.0
NOW = 1_700_000_000.0
SPAN = TimeSpan(NOW - 24 * HOUR, NOW)
VIEW = NodeView("n1", NOW, None, None)


def job(number: int, user: str, held_h: float, idle_h: float, use: Any = None) -> list[Event]:
    """The events of a job of one GPU that ended now."""
    claim = Claim(f"job:c:{number}:0", "slurm", user)
    granted_at = NOW - held_h * HOUR
    facts = {} if use is None else {"use": use}
    return [
        Event(f"{number}-0", NOW, "release", "GPU-0", claim, granted_at, idle_s=idle_h * HOUR),
        Event(f"{number}-1", NOW, "epilog", claim=claim, facts=facts),
    ]


def report() -> Report:
    events = [
        *job(1, "ann", 10, 1, {"driver": [["0", 40_000, 80_000, 90]]}),
        *job(2, "bob", 4, 1, {"driver": [["0", 8_000, 80_000, 20], ["1", None, 80_000, None]]}),
        *job(3, "bob", 2, 1),
    ]
    return build_report(held_times(VIEW, events, SPAN), SPAN, wasted=True)


def test_who_wasted_most_comes_first() -> None:
    users = report().by_user
    assert list(users) == ["bob", "ann"]
    bob, ann = users.values()
    assert bob.wasted_hours == pytest.approx(4 * 0.9 + 1)
    assert bob.mean_utilization == pytest.approx(0.1)
    assert bob.peak_memory_share == pytest.approx(0.05)
    assert ann.wasted_hours == pytest.approx(1)
    assert ann.mean_utilization == pytest.approx(0.9)
    assert ann.peak_memory_share == 0.5


def test_the_table_and_programs_have_the_columns() -> None:
    header, first, *_ = report_lines(report(), 120)
    assert header.split("  ")[0] == "USER"
    assert all(one in header for one in ("GPU HOURS", "WASTED", "MEAN USE", "PEAK MEMORY"))
    assert first.split()[:7] == ["bob", "6.0", "38%", "2.0", "4.6", "10%", "5%"]
    (user, *_) = report_to_dict(report())["users"]
    assert (user["wasted_hours"], user["mean_utilization"], user["peak_memory_share"]) == (
        4.6, 0.1, 0.05,
    )  # fmt: skip
    names, row, *_ = report_rows(report())
    assert dict(zip(names, row, strict=True))["wasted_hours"] == "4.6000"


def test_without_a_use_the_scans_tell_and_shares_are_not_known() -> None:
    only_scans = build_report(held_times(VIEW, job(3, "bob", 2, 1), SPAN), SPAN, wasted=True)
    (bob,) = only_scans.by_user.values()
    assert (bob.wasted_hours, bob.mean_utilization, bob.peak_memory_share) == (1, None, None)
    assert next(line for line in report_lines(only_scans, 120) if "bob" in line).split()[5] == "-"


def test_a_report_of_hours_has_no_further_columns() -> None:
    plain = build_report(held_times(VIEW, job(3, "bob", 2, 1), SPAN), SPAN)
    assert "WASTED" not in next(iter(report_lines(plain, 120)))
    assert "wasted_hours" not in report_to_dict(plain)["total"]


def test_a_report_of_hours_tells_of_the_use_where_it_is_known() -> None:
    events = job(1, "ann", 10, 1, {"driver": [["0", 40_000, 80_000, 90]]})
    plain = build_report(held_times(VIEW, [*events, *job(3, "bob", 2, 1)], SPAN), SPAN)
    header, first, second, *_ = report_lines(plain, 120)
    assert "MEAN USE" in header
    assert "WASTED" not in header
    assert first.split()[:6] == ["ann", "10.0", "83%", "1.0", "90%", "50%"]
    assert second.split()[:6] == ["bob", "2.0", "17%", "1.0", "-", "-"]
    assert report_to_dict(plain)["total"]["mean_utilization"] == 0.9


@pytest.mark.parametrize(
    "rows", [None, 1, [], [1], [["0"]], [["0", "x", {}, []]], [["0", -1, float("nan"), -5]]]
)
def test_garbage_in_a_note_harms_nothing(rows: Any) -> None:
    assert owner_use({"driver": rows}) in (None, OwnerUse(0.0, None))
    events = job(1, "ann", 10, 1, {"driver": rows})
    assert build_report(held_times(VIEW, events, SPAN), SPAN, wasted=True).by_user
    assert held_times(VIEW, job(1, "ann", 10, 1, rows), SPAN)


def test_a_damaged_count_of_less_than_nothing_has_no_bar() -> None:
    rows = [("ann\tslurm", -3600_000.0, 0.0, 1, 1), ("bob\tslurm", 3600_000.0, 0.0, 1, 1)]
    used = UsedOnNode("n1", rows, 0.0, 0.0, {"slurm": 2})
    found = build_report([], SPAN, nodes=[used], wasted=True)
    assert not any("#" in line for line in report_lines(found, 160))
