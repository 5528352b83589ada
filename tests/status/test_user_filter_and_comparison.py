"""What concerns one person, and what is worth showing again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.values import Claim, NodeView, Quarantine, Reservation, Waiter
from canhazgpu.status.comparison import comparison_key
from canhazgpu.status.node_status import NodeStatus, node_status
from canhazgpu.status.status_filter import StatusFilter
from canhazgpu.status.user_filter import User

NOW = 1000.0
POLICY = UsagePolicy(1024, frozenset({"Xorg"}))
ME = User(1001, "alice")
PROCESS = GpuProcess(5, 1001, "alice", "x", 5)


def gpu(index: int, *processes: GpuProcess) -> GpuReading:
    return GpuReading(index, f"GPU-{index}", index, "H100", 45, 80000, processes)


def held(index: int, claim: Claim) -> dict[str, Reservation]:
    return {f"GPU-{index}": Reservation(f"GPU-{index}", claim, 500.0, renewed_at=900.0)}


def waiter(user: str, uid: int | None) -> Waiter:
    return Waiter(f"run:{user}", user, uid, 1, since=990.0, renewed_at=990.0)


def judged(view: NodeView) -> NodeStatus:
    return node_status(view, POLICY)


VIEW = NodeView("n1", NOW, Scan("n1", 0.0, 0.1, (gpu(0), gpu(1))), 990.0)


def with_gpus(*readings: GpuReading) -> NodeView:
    return replace(VIEW, scan=Scan("n1", 0.0, 0.1, readings))


@pytest.mark.parametrize(
    ("view", "indices"),
    [
        (VIEW, []),
        (replace(VIEW, reservations=held(1, Claim("o", "run", "alice", 1001))), [1]),
        (replace(VIEW, reservations=held(1, Claim("o", "run", "alice"))), [1]),
        (replace(VIEW, reservations=held(1, Claim("o", "run", "alice", 7))), []),
        (with_gpus(gpu(0, PROCESS), gpu(1)), [0]),
        (with_gpus(gpu(0, replace(PROCESS, name="Xorg")), gpu(1)), [0]),
        (with_gpus(gpu(0, replace(PROCESS, uid=7)), gpu(1)), []),
        (with_gpus(gpu(0, replace(PROCESS, uid=None, user=None)), gpu(1)), []),
    ],
)
def test_the_gpus_of_one_person(view: NodeView, indices: list[int]) -> None:
    other = replace(VIEW, node="n2")

    found = StatusFilter(users=(ME,)).apply([judged(view), judged(other)])

    assert [gpu.index for node in found for gpu in node.gpus] == indices
    assert [node.node for node in found] == (["n1"] if indices else [])


def test_who_only_waits_sees_the_own_place() -> None:
    queue = (waiter("bob", 7), waiter("alice", 1001))

    (node,) = StatusFilter(users=(ME,)).apply([judged(replace(VIEW, queue=queue))])

    assert (node.gpus, node.queue) == ((), queue[1:])


RESERVED = replace(VIEW, reservations=held(1, Claim("o", "run", "alice", 1001)))


@pytest.mark.parametrize(
    "other",
    [
        replace(VIEW, read_at=NOW + 5, scanned_at=991.0),
        with_gpus(replace(gpu(0), memory_used_mb=46), gpu(1)),
    ],
)
def test_time_and_amounts_are_no_change(other: NodeView) -> None:
    assert comparison_key([judged(other)]) == comparison_key([judged(VIEW)])


def test_a_sign_of_life_is_no_change() -> None:
    one = RESERVED.reservations["GPU-1"]
    later = replace(RESERVED, reservations={"GPU-1": replace(one, renewed_at=950.0)})

    assert comparison_key([judged(later)]) == comparison_key([judged(RESERVED)])


@pytest.mark.parametrize(
    "other",
    [
        RESERVED,
        replace(VIEW, node="n2"),
        replace(VIEW, queue=(waiter("bob", 7),)),
        replace(VIEW, quarantines={"GPU-0": Quarantine("GPU-0", "x", 1.0)}),
        with_gpus(gpu(0)),
        with_gpus(gpu(0, PROCESS), gpu(1)),
        with_gpus(replace(gpu(0), fault="lost"), gpu(1)),
        with_gpus(replace(gpu(0), memory_used_mb=2000), gpu(1)),
    ],
)
def test_changes(other: NodeView) -> None:
    assert comparison_key([judged(other)]) != comparison_key([judged(VIEW)])


def test_fewer_gpus_than_there_should_be_are_a_change() -> None:
    lacking = node_status(VIEW, POLICY, expected_gpus=3)

    assert comparison_key([lacking]) != comparison_key([judged(VIEW)])
