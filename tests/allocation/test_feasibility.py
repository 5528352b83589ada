"""Who could be served now, who when all reservations have ended, and who not even then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canhazgpu.allocation.feasibility import Feasibility, feasibility
from canhazgpu.allocation.refusal import RefusalKind
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.values import Claim, NodeView, Quarantine, Reservation, Waiter
from canhazgpu.probe.node_probe import judge_scan

NOW = 1000.0
BOB = GpuProcess(7, 2, "bob", "python3", 5000)
ALICES = GpuProcess(8, 1, "alice", "train", 9000)
THREE = Waiter("run:1", "ann", 3, 3)


def gpu(index: int, *processes: GpuProcess, **more: object) -> GpuReading:
    used = 45 + sum(one.memory_mb or 0 for one in processes)
    return replace(
        GpuReading(index, f"GPU-{index}", index, "H100", used, 80000, processes),
        **more,  # type: ignore[arg-type]
    )


def of(
    *gpus: GpuReading,
    waiter: Waiter = THREE,
    held: tuple[int, ...] = (),
    quarantined: tuple[int, ...] = (),
    released: dict[int, float] | None = None,
    force: bool = False,
) -> Feasibility:
    claim = Claim("run:0", "run", "alice", 1)
    scan = Scan("n1", 0.0, 0.0, gpus)
    view = NodeView(
        "n1",
        NOW,
        scan,
        NOW - 5,
        {f"GPU-{index}": Reservation(f"GPU-{index}", claim, NOW - 60) for index in held},
        {f"GPU-{index}": at for index, at in (released or {}).items()},
        {f"GPU-{index}": Quarantine(f"GPU-{index}", "fan", NOW) for index in quarantined},
    )

    def other_use(reservation: Reservation, reading: GpuReading) -> tuple[GpuProcess, ...]:
        return tuple(one for one in reading.processes if one.uid != reservation.claim.uid)

    return feasibility(view, judge_scan(scan, UsagePolicy(1024)), waiter, other_use, force=force)


def test_the_sentence_of_the_reference() -> None:
    found = of(gpu(0), gpu(1, BOB), gpu(2, BOB))
    assert found.is_obstructed
    assert found.refusal.reason == (
        "Not enough GPUs available. Requested: 3, Available: 1 (2 GPUs in use without reservation"
        " - run 'canhazgpu status' for details)"
    )
    assert found.refusal.kind is RefusalKind.OBSTRUCTED
    assert len(found.refusal.details) == 2


@pytest.mark.parametrize(
    ("found", "now", "obstructed"),
    [
        (of(gpu(0), gpu(1), gpu(2)), True, False),
        # Reservations end.
        (of(gpu(0), gpu(1), gpu(2), held=(0, 1, 2)), False, False),
        (of(gpu(0), gpu(1), gpu(2, ALICES), held=(2,)), False, False),
        (of(gpu(0), gpu(1), gpu(2), gpu(3, BOB), held=(0,)), False, False),
        # Use without reservation, quarantines and faults stay.
        (of(gpu(0), gpu(1), gpu(2, BOB), held=(0,)), False, True),
        (of(gpu(0), gpu(1), gpu(2), held=(0,), quarantined=(2,)), False, True),
        (of(gpu(0), gpu(1), gpu(2), quarantined=(2,)), False, True),
        (of(gpu(0), gpu(1), gpu(2, fault="lost"), held=(0,)), False, True),
        # Somebody else's use of a reserved GPU outlasts the reservation, and so does a quarantine.
        (of(gpu(0), gpu(1), gpu(2, ALICES, BOB), held=(2,)), False, True),
        (of(gpu(0), gpu(1), gpu(2), held=(2,), quarantined=(2,)), False, True),
        # What was seen before a release may be the last owner's.
        (of(gpu(0), gpu(1), gpu(2, BOB), released={2: NOW - 5}), False, False),
        (of(gpu(0), gpu(1), gpu(2, BOB), released={2: NOW - 6}), False, True),
        # By force use is no obstacle.
        (of(gpu(0), gpu(1), gpu(2, BOB), force=True), True, False),
        (of(gpu(0), gpu(1), gpu(2, ALICES, BOB), held=(2,), force=True), False, False),
        (of(gpu(0), gpu(1), gpu(2, BOB), quarantined=(2,), force=True), False, True),
    ],
)
def test_who_can_be_served(found: Feasibility, now: bool, obstructed: bool) -> None:
    assert (found.can_be_served_now, found.is_obstructed) == (now, obstructed)
    assert (found.sentence == "") is now


def test_all_that_stands_in_the_way_is_counted() -> None:
    found = of(gpu(0), gpu(1, BOB), gpu(2, fault="lost"), gpu(3), quarantined=(3,))
    assert found.sentence == (
        "Not enough GPUs available. Requested: 3, Available: 1 (1 GPUs in use without reservation,"
        " 1 quarantined, 1 unreadable - run 'canhazgpu status' for details)"
    )
    assert [text.partition(" on n1 ")[2] for text in found.refusal.details] == [
        "is in use by bob WITHOUT RESERVATION: 5045MB used by PID 7 (python3)",
        "cannot be read: lost",
        "is quarantined: fan",
    ]


def test_who_names_gpus_is_told_of_these_alone() -> None:
    one = Waiter("run:1", "ann", 3, 1, gpus=("GPU-1",))
    assert not of(gpu(0, BOB), gpu(1), waiter=one).is_obstructed
    found = of(gpu(0), gpu(1, BOB), waiter=one)
    assert found.is_obstructed
    assert found.refusal.reason.startswith("GPU 1 (GPU-1) on n1 is in use by bob")


def test_a_count_is_of_whole_gpus_or_of_one_profile() -> None:
    slices = [
        gpu(0, uuid=f"MIG-{index}", mig_index=index, parent_uuid="GPU-0", name="A100 MIG 1g.5gb")
        for index in range(3)
    ]
    whole = Waiter("run:1", "ann", 3, 1)
    assert of(*slices, gpu(1, BOB), waiter=whole).is_obstructed
    assert of(*slices, gpu(1, BOB), waiter=replace(whole, profile="1g.5gb")).can_be_served_now


def test_a_node_without_enough_gpus_is_not_obstructed() -> None:
    # The attempt itself refuses that for good.
    assert not of(gpu(0), gpu(1)).is_obstructed
