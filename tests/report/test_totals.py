"""What counts within a span, how it adds up, and its forms."""

from __future__ import annotations

import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.ledger.values import Claim, Event, NodeView, Reservation
from canhazgpu.report.export import CSV_COLUMNS, escape_formula, report_rows, report_to_dict
from canhazgpu.report.held_time import HeldTime, TimeSpan, held_times
from canhazgpu.report.tables import MAX_BAR, report_lines
from canhazgpu.report.totals import build_report

HOUR = 3600.0
NOW = 1_700_000_000.0
SPAN = TimeSpan(NOW - 24 * HOUR, NOW)


def claim(owner: str = "run:1", user: str = "alice", type_: str = "run") -> Claim:
    return Claim(owner, type_, user)


def release(start_h: float | None, end_h: float, gpu: str = "GPU-0", **more: object) -> Event:
    """A release of what was granted so many hours before now, that many hours before now."""
    granted_at = None if start_h is None else NOW - start_h * HOUR
    fields = {"claim": claim(), "granted_at": granted_at, "gpu": gpu, **more}
    return Event("1-0", NOW - end_h * HOUR, "release", **fields)  # type: ignore[arg-type]


def held(start_h: float, gpu: str = "GPU-0", **more: object) -> Reservation:
    given = {"claim": claim(), "granted_at": NOW - start_h * HOUR, **more}
    return Reservation(gpu, **given)  # type: ignore[arg-type]


def view(*reservations: Reservation, node: str = "n1") -> NodeView:
    return NodeView(node, NOW, None, None, {one.gpu: one for one in reservations})


def hours(holds: list[HeldTime]) -> list[float]:
    return [one.held_s / HOUR for one in holds]


@pytest.mark.parametrize(
    ("event", "inside"),
    [
        (release(5, 3), 2),
        (release(30, 20), 4),  # began before the span
        (release(24, 0), 24),
        (release(3, 3), 0),
        (release(3, 5), 0),  # clocks that went back
        (release(None, 3), 0),  # a record that cannot be read
        (release(5, -1), 5),  # released after the view was read
    ],
)
def test_a_release_counts_for_its_part_inside(event: Event, inside: float) -> None:
    assert hours(held_times(view(), [event], SPAN)) == [pytest.approx(inside)]


def test_what_still_runs_counts_until_now() -> None:
    holds = held_times(view(held(2), held(100, "GPU-1")), [], SPAN)
    assert hours(holds) == [2, 24]


def test_what_still_runs_may_have_been_idle() -> None:
    (recent, long_held) = held_times(
        view(held(2, idle_s=600.0), held(96, "GPU-1", idle_s=4 * HOUR)), [], SPAN
    )
    assert recent.idle_s == 600
    # Of what began before, the part inside.
    assert long_held.idle_s == HOUR


def test_an_unreadable_record_that_is_still_held_has_no_hours() -> None:
    unreadable = Reservation("GPU-0", Claim("unreadable", "unknown", "unknown"), 0.0)
    assert hours(held_times(view(unreadable), [], SPAN)) == [0]


def test_what_is_released_between_view_and_history_counts_once() -> None:
    assert hours(held_times(view(held(2)), [release(2, -0.1)], SPAN)) == [2]
    # The same owner's earlier reservation of the same GPU is another one.
    assert hours(held_times(view(held(2)), [release(5, 3)], SPAN)) == [2, 2]


def test_what_was_granted_after_the_view_is_not_there_yet() -> None:
    assert held_times(view(), [release(-0.1, -0.2)], SPAN) == []


@pytest.mark.parametrize("kind", ["grant", "extend", "quarantine", "unquarantine", "wait", "leave"])
def test_other_events_are_no_use(kind: str) -> None:
    event = Event("1-0", NOW - HOUR, kind, "GPU-0", claim(), NOW - 2 * HOUR)
    assert held_times(view(), [event], SPAN) == []


@pytest.mark.parametrize(
    ("event", "idle"),
    [
        (release(5, 3, idle_s=HOUR), 1),
        (release(28, 20, idle_s=4 * HOUR), 2),  # half of it is inside
        (release(5, 3, idle_s=9 * HOUR), 2),  # never more than was held
        (release(5, 3, idle_s=-HOUR), 0),
        (release(3, 3, idle_s=HOUR), 0),
    ],
)
def test_idle_hours(event: Event, idle: float) -> None:
    (hold,) = held_times(view(), [event], SPAN)
    assert hold.idle_s / HOUR == pytest.approx(idle)


def hold(user: str, node: str, owner: str, held_h: float, type_: str = "run") -> HeldTime:
    return HeldTime(node, owner, type_, user, held_h * HOUR, held_h * HOUR / 10)


HOLDS = [
    # One job with two GPUs on each of two nodes
    *(hold("bob", node, "job:c:1:0", 10, "slurm") for node in ("n1", "n1", "n2", "n2")),
    hold("alice", "n1", "run:1", 30),
    hold("alice", "n1", "manual:1", 10, "manual"),
    hold("alice", "n2", "run:2", 20),
    hold("carol", "n2", "run:3", 0),
]


def test_usage_adds_up() -> None:
    report = build_report(HOLDS, SPAN)

    assert list(report.by_user) == ["alice", "bob", "carol"]
    assert list(report.by_node) == ["n1", "n2"]
    alice, bob = report.by_user["alice"], report.by_user["bob"]
    assert (alice.gpu_hours, alice.share, alice.idle_hours) == (60, 0.6, 6)
    assert (bob.gpu_hours, bob.share, bob.idle_hours) == (40, 0.4, 4)
    assert alice.reservations == {"manual": 1, "run": 2}
    # A reservation is one owner's, of however many GPUs and nodes.
    assert bob.reservations == {"slurm": 1}
    assert report.by_node["n1"].reservations == {"manual": 1, "run": 1, "slurm": 1}
    assert report.by_node["n2"].reservations == {"run": 2, "slurm": 1}
    assert (report.total.gpu_hours, report.total.share) == (100, 1)
    assert report.total.reservation_count == 5
    assert dict(report.by_user_and_node())["bob", "n2"].gpu_hours == 20


def test_shares_of_some_users_are_of_everybodys_hours() -> None:
    report = build_report(HOLDS, SPAN, ["bob", "nobody"])
    assert list(report.by_user) == ["bob"]
    assert report.total.share == 0.4
    assert report.by_node["n1"].share == 0.2


def test_nothing_held_shares_nothing() -> None:
    report = build_report([hold("carol", "n1", "run:3", 0)], SPAN)
    assert report.by_user["carol"].share == 0
    assert build_report([], SPAN).total.reservation_count == 0


HOURS = st.floats(0, 1000, allow_nan=False)


@given(
    st.lists(
        st.builds(hold, *(st.sampled_from("abc") for _ in range(3)), HOURS),
        max_size=20,
    )
)
def test_users_and_nodes_add_up_to_the_total(holds: list[HeldTime]) -> None:
    report = build_report(holds, SPAN)
    for groups in (report.by_user, report.by_node, dict(report.by_user_and_node())):
        one = list(groups.values())
        assert sum(usage.gpu_hours for usage in one) == pytest.approx(report.total.gpu_hours)
        assert sum(usage.share for usage in one) == pytest.approx(report.total.share)
        assert all(usage.idle_hours <= usage.gpu_hours for usage in one)


def test_the_form_for_programs() -> None:
    form = report_to_dict(build_report(HOLDS, SPAN))

    assert (form["since"], form["until"]) == ("2023-11-13T22:13:20Z", "2023-11-14T22:13:20Z")
    assert form["users"][1] == {
        "user": "bob",
        "gpu_hours": 40,
        "share": 0.4,
        "idle_hours": 4,
        "reservations": 1,
        "reservations_by_type": {"slurm": 1},
        "mean_utilization": None,
        "peak_memory_share": None,
    }
    assert [one["node"] for one in form["nodes"]] == ["n1", "n2"]
    assert form["users_on_nodes"][0]["node"] == "n1"
    assert form["total"]["gpu_hours"] == 100


def test_rows_have_every_type_in_its_column() -> None:
    odd = hold("dave", "n1", "unreadable", 1, "unknown")
    rows = list(report_rows(build_report([*HOLDS, odd], SPAN)))

    assert rows[0] == CSV_COLUMNS
    by_place = {row[:2]: dict(zip(CSV_COLUMNS, row, strict=True)) for row in rows[1:]}
    alice = by_place["alice", "n1"]
    assert [alice[name] for name in ("reservations", "slurm", "run", "manual", "other")] == [
        "2", "0", "1", "1", "0",
    ]  # fmt: skip
    assert by_place["dave", "n1"]["other"] == "1"
    assert by_place["bob", "n2"]["gpu_hours"] == "20.0000"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert escape_formula(text) == f"'{text}"


@pytest.mark.parametrize("text", ["alice", "a=b", "n-1", ""])
def test_a_name_stays_as_it_is(text: str) -> None:
    assert escape_formula(text) == text


def test_odd_names_are_one_cell_each() -> None:
    name = 'a,"b"\n=c'
    text = io.StringIO()
    csv.writer(text).writerows(report_rows(build_report([hold(name, "n1", "run:1", 1)], SPAN)))
    rows = list(csv.reader(io.StringIO(text.getvalue())))
    assert rows[1][0] == name


TABLE = """\
USER   GPU HOURS  SHARE  IDLE HOURS  RESERVATIONS
alice       60.0    60%         6.0  1 manual, 2 run  #####################
bob         40.0    40%         4.0  1 slurm          ##############
carol        0.0     0%         0.0  1 run

NODE  GPU HOURS  SHARE  IDLE HOURS  RESERVATIONS
n1         60.0    60%         6.0  1 manual, 1 run, 1 slurm  #############
n2         40.0    40%         4.0  2 run, 1 slurm            #########

100.0 GPU hours, 10.0 of them idle, in 1 manual, 3 run, 1 slurm
"""


def test_the_table() -> None:
    lines = list(report_lines(build_report(HOLDS, SPAN), 75))
    assert "\n".join(lines) + "\n" == TABLE


@pytest.mark.parametrize("width", range(1, 200, 7))
def test_bars_fit_the_terminal_and_nothing_else_is_cut(width: int) -> None:
    for line in report_lines(build_report(HOLDS, SPAN), width):
        bar = line.count("#")
        assert bar == 0 or len(line) <= width
        assert bar <= MAX_BAR
    assert any(
        "1 manual, 1 run, 1 slurm" in one for one in report_lines(build_report(HOLDS, SPAN), 1)
    )


def test_the_least_use_is_seen() -> None:
    holds = [hold("alice", "n1", "run:1", 1000), hold("bob", "n1", "run:2", 0.1)]
    lines = list(report_lines(build_report(holds, SPAN), None))
    assert lines[2].endswith(" #")


def test_wide_names_keep_the_columns() -> None:
    holds = [hold("\u674e\u660e", "n1", "run:1", 1), hold("bob", "n1", "run:2", 1)]
    _header, *rows = list(report_lines(build_report(holds, SPAN), None))[:3]
    assert unicodedata.east_asian_width("\u674e") == "W"
    ends = {
        row.index("1.0") + sum(unicodedata.east_asian_width(one) == "W" for one in row)
        for row in rows
    }
    assert len(ends) == 1


def test_names_that_become_the_same_stay_apart() -> None:
    holds = [hold("bob", "n1", "run:1", 1), hold("bob\x1b", "n1", "run:2", 1)]
    lines = list(report_lines(build_report(holds, SPAN), None, lambda name: name.strip("\x1b")))
    assert sum(line.startswith("bob ") for line in lines) == 2
