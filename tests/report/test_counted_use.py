"""The use that nodes have counted, in a report: as their histories would tell it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.ledger.gpu_use import use_by_day
from canhazgpu.ledger.usage import DAY_S, NodeUsage, usage_by_day
from canhazgpu.ledger.values import Claim, Event, NodeView
from canhazgpu.report.export import report_rows, report_to_dict
from canhazgpu.report.held_time import TimeSpan, held_times
from canhazgpu.report.node_rows import UsedOnNode, used_on_node
from canhazgpu.report.tables import report_lines
from canhazgpu.report.totals import Report, build_report

TODAY = 19_700
NOW = TODAY * DAY_S + 36_000.0
SPAN = TimeSpan((TODAY - 7) * DAY_S, NOW)
EVIL = "\x1b[2J=evil\n\tbob\u202e"


def job(number: int, user: str, held_s: int, idle_s: int, rows: Any) -> list[Event]:
    """The events of a job that ended now, of as many GPUs as there are rows."""
    claim = Claim(f"job:c:{number}:0", "slurm", user)
    use = {"driver": rows, "held_ms": held_s * 1000, "idle_ms": idle_s * 1000 * len(rows)}
    releases = [
        Event(f"{number}-0", NOW, "release", f"GPU-{i}", claim, NOW - held_s, idle_s=idle_s)
        for i in range(len(rows))
    ]
    return [*releases, Event(f"{number}-1", NOW, "epilog", claim=claim, facts={"use": use})]


def counted(node: str, events: list[Event]) -> NodeUsage:
    """What the node would have counted of these."""

    def sums(by_day: dict[int, dict[str, list[int]]], last: int) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for day, of_users in by_day.items():
            for key, more in of_users.items() if day <= last else ():
                old = found.get(key, [0] * 6)
                found[key] = [a + b for a, b in zip(old, more, strict=True)]
        return found

    first = int(SPAN.since // DAY_S)
    usage, use = usage_by_day(events), use_by_day(events)
    before, total = sums(usage, first - 1), sums(usage, TODAY)
    return NodeUsage(node, before, total, [], sums(use, first - 1), sums(use, TODAY))


def on_node(usage: NodeUsage) -> UsedOnNode:
    found = used_on_node(usage, SPAN)
    assert found is not None
    return found


def row(peak: int | None, percent: int | None) -> list[Any]:
    return ["0", None if percent is None else peak, 80_000, percent]


ROWS = st.builds(
    row,
    st.one_of(st.none(), st.integers(0, 90_000)),
    st.one_of(st.none(), st.integers(0, 100)),
)
JOBS = st.tuples(
    st.sampled_from(["ann", "bob", EVIL]),
    st.integers(1, 9 * DAY_S),
    st.floats(0, 1),
    st.lists(ROWS, min_size=1, max_size=3),
)


@given(st.lists(JOBS, min_size=1, max_size=5), st.booleans())
def test_counts_and_histories_tell_the_same(jobs: list[Any], wasted: bool) -> None:
    events = []
    for number, (user, held_s, idle, rows) in enumerate(jobs):
        # Of a holding that began before the days shown, both weigh its mean use by its part inside.
        events += job(number, user, held_s, int(held_s * idle), rows)
    view = NodeView("n1", NOW, None, None)
    by_history = build_report(held_times(view, events, SPAN), SPAN, wasted=wasted)
    by_counts = build_report([], SPAN, nodes=[on_node(counted("n1", events))], wasted=wasted)
    assert by_counts.by_user.keys() == by_history.by_user.keys()
    for user, one in by_history.by_user.items():
        other = by_counts.by_user[user]
        assert other.gpu_hours == pytest.approx(one.gpu_hours, abs=1e-4)
        assert other.wasted_hours == pytest.approx(one.wasted_hours, abs=1e-4)
        assert other.mean_utilization == pytest.approx(one.mean_utilization, abs=0.01)
    node, same = by_counts.by_node["n1"], by_history.by_node["n1"]
    assert node.wasted_hours == pytest.approx(same.wasted_hours, abs=1e-4)
    assert node.mean_utilization == pytest.approx(same.mean_utilization, abs=0.01)


def report(*, wasted: bool = False, users: tuple[str, ...] = ()) -> Report:
    ann = job(1, "ann", 36_000, 3600, [["0", 40_000, 80_000, 90]])
    bob = job(2, EVIL, 14_400, 0, [["0", 8_000, 80_000, 20], ["1", None, 80_000, None]])
    nodes = [on_node(counted("n1", ann)), on_node(counted("n2", bob))]
    return build_report([], SPAN, users, nodes, wasted=wasted)


def test_a_plain_report_has_the_use_of_nodes_that_count() -> None:
    header, first, second, *_ = report_lines(report(), 160, repr)
    assert all(one in header for one in ("GPU HOURS", "IDLE HOURS", "MEAN USE", "PEAK MEMORY"))
    assert first.split("  ")[0].startswith(repr("ann"))
    assert "90%" in first
    assert "50%" in first
    assert "10%" in second
    assert "5%" in second
    everything = report_to_dict(report())
    (ann, evil) = everything["users"]
    assert (ann["mean_utilization"], ann["peak_memory_share"]) == (0.9, 0.5)
    assert (evil["user"], evil["mean_utilization"]) == (EVIL, 0.1)
    assert [one["mean_utilization"] for one in everything["users_on_nodes"]] == [0.9, 0.1]
    assert [one["mean_utilization"] for one in everything["nodes"]] == [0.9, 0.1]
    json.dumps(everything, allow_nan=False)


def test_those_who_wasted_most_come_first_by_the_counts() -> None:
    found = report(wasted=True)
    assert list(found.by_user) == [EVIL, "ann"]
    assert found.by_user[EVIL].wasted_hours == pytest.approx(8 * 0.9, abs=1e-3)
    assert found.by_user["ann"].wasted_hours == pytest.approx(1.0, abs=1e-3)
    names, *rows = report_rows(found, repr)
    first = dict(zip(names, rows[0], strict=True))
    assert (first["mean_utilization"], first["wasted_hours"]) == ("0.1000", "7.2000")


def test_only_the_users_asked_for_are_shown() -> None:
    found = report(users=("ann",))
    assert list(found.by_user) == ["ann"]
    assert found.total.mean_utilization == 0.9
    assert list(found.by_node) == ["n1"]


@pytest.mark.parametrize(
    "use",
    [
        1, "x", [1], {"a": 1}, {"a": []}, {"a": [1, 2]}, {"a": ["x"] * 6}, {"a": [None] * 6},
        {"a": [5, 9, 0, 1, 0, 0]}, {"a": [5, -1, 0, 1, 0, 0]}, {"a": [5, 1, 0, 1, 9, 0]},
        {"a": [float("nan")] * 6}, {"a": [float("inf"), 0, 0, 1, 0, 0]},
        {"a": [1e16, 0, 0, 1, 0, 0]},
    ],
)  # fmt: skip
def test_a_node_that_counted_what_cannot_be_is_read_in_its_history(use: Any) -> None:
    assert used_on_node(NodeUsage("n1", {}, {}, [], {}, use), SPAN) is None
