"""A node in one line, and as JSON."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canhazgpu.cli.status_display.summary_lines import summary_lines
from canhazgpu.cli.terminal.text import text_width
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import GpuState, UsagePolicy
from canhazgpu.ledger.values import Claim, NodeView, Quarantine, Reservation, Waiter
from canhazgpu.status.node_status import NodeStatus, node_status
from canhazgpu.status.status_filter import StatusFilter
from canhazgpu.status.summary import NodeSummary, UserGroup, summarize, summary_to_dict

NOW = 1700000000.0


def reading(index: int, *users: str | None) -> GpuReading:
    processes = tuple(GpuProcess(9 + index, None, user, "x", 8000) for user in users)
    return GpuReading(
        index, f"GPU-{index}", index, "H100", 45 + 8000 * len(users), 80000, processes
    )


def held(index: int, user: str) -> Reservation:
    return Reservation(f"GPU-{index}", Claim(f"manual:{index}", "manual", user), NOW - 60)


VIEW = NodeView(
    "n1",
    NOW,
    Scan("n1", 0.0, 0.1, (*map(reading, range(3)), reading(3, "u1"), *map(reading, range(4, 7)),
                          reading(7, "u3"))),
    NOW - 1,
    {f"GPU-{index}": held(index, "u1" if index < 5 else "u2") for index in range(3, 7)},
)  # fmt: skip
EMPTY = NodeSummary("n", 0, 0, UserGroup(0), UserGroup(0), UserGroup(0), 0, 0, 0)


def status(view: NodeView = VIEW, *, live: bool = True) -> NodeStatus:
    return node_status(view, UsagePolicy(1024), live=live)


def line(one: NodeStatus, width: int | None = None, **more: bool) -> str:
    (found,) = summary_lines([summarize(one)], width, **more)
    return found


def test_the_line_of_a_node() -> None:
    assert line(status()) == "n1  8 GPUs  3 free  4 u1,u2  1 u3 WITHOUT RESERVATION"


def test_everything_else_that_is_to_be_known() -> None:
    view = replace(
        VIEW,
        quarantines={"GPU-0": Quarantine("GPU-0", "fan", NOW)},
        queue=(Waiter("run:1", "w", 1, 1, since=NOW - 5, renewed_at=NOW),),
        scan=Scan("n1", 0.0, 0.1, (
            reading(0), replace(reading(1), fault="lost"), reading(2), reading(3, "u1", "u3"),
            *map(reading, range(4, 7)), reading(7, None),
        )),
    )  # fmt: skip
    assert line(status(view, live=False)) == (
        "n1  8 GPUs  1 free  4 u1,u2  u3 WITHOUT RESERVATION on 1 of them"
        "  1 unknown WITHOUT RESERVATION  1 quarantined  1 unknown  1 waiting  (scanned 1s ago)"
    )


def test_a_node_that_cannot_be_read_and_one_with_a_single_gpu() -> None:
    fault = replace(VIEW, scan=Scan("n1", 0.0, 0.1, (), "no driver"), reservations={})
    assert line(status(fault)) == "n1  0 GPUs  0 free  (no driver)"
    single = replace(VIEW, scan=Scan("n1", 0.0, 0.1, (reading(0),)), reservations={})
    assert line(status(single)) == "n1  1 GPU   1 free"


def test_the_lines_of_several_nodes_are_under_each_other() -> None:
    others = [replace(EMPTY, node="a-long-name", total=16, available=16), replace(EMPTY, total=1)]
    assert list(summary_lines([summarize(status()), *others], None)) == [
        "n1            8 GPUs  3 free  4 u1,u2  1 u3 WITHOUT RESERVATION",
        "a-long-name  16 GPUs  16 free",
        "n             1 GPU   0 free",
    ]


def test_with_a_filter_its_gpus_are_counted_and_the_nodes_number_stays() -> None:
    (found,) = StatusFilter(states=frozenset({GpuState.UNRESERVED})).apply([status()])
    assert line(found, shows_none_free=False) == "n1  8 GPUs  1 u3 WITHOUT RESERVATION"
    (found,) = StatusFilter(states=frozenset({GpuState.AVAILABLE})).apply([status()])
    assert line(found, shows_none_free=False) == "n1  8 GPUs  3 free"


CROWD = replace(
    EMPTY,
    total=64,
    available=0,
    reserved=UserGroup(50, tuple(f"user{number:02}" for number in range(50))),
    unreserved=UserGroup(14, tuple(f"guest{number:02}" for number in range(14))),
)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (90, "n  64 GPUs  0 free  50 user00,user01,+48  14 guest00,guest01,+12"
             " WITHOUT RESERVATION"),
        (80, "n  64 GPUs  0 free  50 user00,+49  14 guest00,+13 WITHOUT RESERVATION"),
        (70, "n  64 GPUs  0 free  50 user00,+49  14 guest00,+13 WITHOUT RESERVATION"),
        (60, "n  64 GPUs  0 free  50 of 50 users  14 of 14 users WITHOUT …"),
        (21, "n  64 GPUs  0 free  …"),
        (17, "n  64 GPUs  0 fr…"),
    ],
)  # fmt: skip
def test_a_narrow_terminal_names_fewer_users_then_cuts(width: int, expected: str) -> None:
    assert list(summary_lines([CROWD], width)) == [expected]


@pytest.mark.parametrize("width", range(12, 120))
@pytest.mark.parametrize("user", ["alice", "漢字漢字"])
def test_no_line_is_wider_than_the_terminal(width: int, user: str) -> None:
    users = tuple(f"{user}{number}" for number in range(9))
    one = replace(CROWD, reserved=UserGroup(9, users), notes=("scanned 3m ago",))
    (plain,) = summary_lines([one], width)
    (coloured,) = summary_lines([one], width, coloured=True)
    assert text_width(plain) <= width
    assert coloured.replace("\x1b[33m", "").replace("\x1b[31m", "").replace("\x1b[0m", "") == plain


def test_colours_tell_free_held_and_alarming() -> None:
    coloured = line(status(), coloured=True)
    assert "\x1b[32m3 free\x1b[0m" in coloured
    assert "\x1b[33m4 u1,u2\x1b[0m" in coloured
    assert "\x1b[31m1 u3 WITHOUT RESERVATION\x1b[0m" in coloured


def test_names_do_not_command_the_terminal() -> None:
    hostile = replace(EMPTY, reserved=UserGroup(1, ("\x1b[2Jx\n",)), notes=("\x1b]0;t\x07",))
    assert list(summary_lines([hostile], None)) == ["n  0 GPUs  0 free  1 x  ()"]


def test_every_key_of_the_json() -> None:
    view = replace(VIEW, partitions=("gpu",))
    assert summary_to_dict(NOW, [(status(view), summarize(status(view)))]) == {
        "generated_at": "2023-11-14T22:13:20Z",
        "error": None,
        "nodes": [
            {
                "node": "n1", "scanned_at": "2023-11-14T22:13:19Z", "live": True,
                "source": "nvml", "fault": None, "found_gpus": 8, "expected_gpus": 8,
                "reservations_known": True, "hooks_outage": None, "partitions": ["gpu"],
                "partitions_at": None,
                "total": 8, "available": 3, "reserved": 4, "unreserved": 1, "quarantined": 0,
                "unknown": 0, "users": ["u1", "u2"], "unreserved_users": ["u3"],
                "intruded": 0, "intruders": [], "waiting": 0,
            }
        ],
    }  # fmt: skip
