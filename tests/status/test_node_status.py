"""The one state of each GPU, from the ledger's view and a scan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canhazgpu.allocation.coverage import PidNamespace
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import GpuState, Usage, UsagePolicy
from canhazgpu.ledger.values import Claim, NodeView, Quarantine, Reservation, Waiter
from canhazgpu.node.process_id import ProcessId
from canhazgpu.status.node_status import (
    IMPOSSIBLE_VALUES,
    NEVER_SCANNED,
    NO_UUID,
    NOT_FOUND,
    NOTHING_READ,
    SCANNED_BEFORE_GRANT,
    SCANNED_BEFORE_RELEASE,
    node_status,
    with_live_scan,
    with_unhealthy,
)

NOW = 1000.0
UUID = "GPU-a"
FREE = GpuReading(0, UUID, 0, "H100", 45, 80000)
BUSY = replace(FREE, memory_used_mb=8452, processes=(GpuProcess(7, 1, "bob", "x", 8000),))
BROKEN = GpuReading(0, UUID, None, "", None, None, fault="GPU is lost")
NAMELESS = replace(FREE, uuid="")
IMPOSSIBLE_READING = replace(FREE, memory_used_mb=80001)
RESERVED = {UUID: Reservation(UUID, Claim("job:c:1:0", "slurm", "alice", job_id="1"), 500.0)}
HELD_BACK = {UUID: Quarantine(UUID, "row remap pending", 400.0)}


def view(*readings: GpuReading, fault: str | None = None, **more: object) -> NodeView:
    scan = Scan("n1", 0.0, 0.1, readings, fault)
    base = NodeView("n1", NOW, scan, scanned_at=900.0)
    return replace(base, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "state", "usage", "reason"),
    [
        (view(FREE), GpuState.AVAILABLE, Usage.FREE, ""),
        (view(BUSY), GpuState.UNRESERVED, Usage.IN_USE, ""),
        (view(BROKEN), GpuState.UNKNOWN, Usage.UNKNOWN, "GPU is lost"),
        (view(NAMELESS), GpuState.UNKNOWN, Usage.UNKNOWN, NO_UUID),
        (view(IMPOSSIBLE_READING), GpuState.UNKNOWN, Usage.UNKNOWN, IMPOSSIBLE_VALUES),
        (view(FREE, reservations=RESERVED), GpuState.RESERVED, Usage.FREE, ""),
        (view(BUSY, reservations=RESERVED), GpuState.RESERVED, Usage.IN_USE, ""),
        (view(BROKEN, reservations=RESERVED), GpuState.RESERVED, Usage.UNKNOWN, "GPU is lost"),
        (view(FREE, quarantines=HELD_BACK), GpuState.QUARANTINED, Usage.FREE, ""),
        (view(BROKEN, quarantines=HELD_BACK), GpuState.QUARANTINED, Usage.UNKNOWN, "GPU is lost"),
        # The scan began before what the ledger says happened.
        (view(BUSY, released_at={UUID: 950.0}), GpuState.UNKNOWN, Usage.UNKNOWN,
         SCANNED_BEFORE_RELEASE),
        (view(FREE, released_at={UUID: 950.0}), GpuState.AVAILABLE, Usage.FREE, ""),
        (view(BUSY, released_at={UUID: 850.0}), GpuState.UNRESERVED, Usage.IN_USE, ""),
        (view(FREE, reservations=RESERVED, scanned_at=499.0), GpuState.RESERVED, Usage.UNKNOWN,
         SCANNED_BEFORE_GRANT),
        (view(FREE, scanned_at=None), GpuState.UNKNOWN, Usage.UNKNOWN, NEVER_SCANNED),
    ],
)  # fmt: skip
def test_a_gpu_has_one_state(given: NodeView, state: GpuState, usage: Usage, reason: str) -> None:
    (gpu,) = node_status(given, UsagePolicy(1024)).gpus

    assert (gpu.state, gpu.usage, gpu.unknown_reason) == (state, usage, reason)


def test_the_threshold_decides_what_in_use_is() -> None:
    (gpu,) = node_status(view(BUSY), UsagePolicy(8452)).gpus

    assert gpu.state is GpuState.AVAILABLE


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (view(replace(FREE, uuid="GPU-b")), NOT_FOUND),
        (view(fault="driver gone"), NOTHING_READ),
        (view(scan=None, scanned_at=None), NEVER_SCANNED),
    ],
)
def test_a_gpu_that_only_the_ledger_knows_is_not_left_out(given: NodeView, reason: str) -> None:
    status = node_status(replace(given, reservations=RESERVED), UsagePolicy(1024))

    gpu = status.gpus[-1]
    assert (gpu.index, gpu.uuid, gpu.state) == (None, UUID, GpuState.RESERVED)
    assert gpu.unknown_reason == reason


def test_a_gpu_only_in_quarantine_is_shown_as_such() -> None:
    (gpu,) = node_status(view(quarantines=HELD_BACK), UsagePolicy(1024)).gpus

    assert gpu.state is GpuState.QUARANTINED


def test_gpus_stand_in_order_of_index_and_those_without_one_last() -> None:
    first, second = replace(FREE, index=0, uuid="GPU-z"), replace(FREE, index=1, uuid="GPU-y")
    lost = {name: Reservation(name, Claim("o", "slurm", "u"), 1.0) for name in ("GPU-a", "GPU-b")}

    status = node_status(view(second, first, reservations=lost), UsagePolicy(1024))

    assert [gpu.uuid for gpu in status.gpus] == ["GPU-z", "GPU-y", "GPU-a", "GPU-b"]


def test_a_live_scan_that_failed_keeps_the_gpus_of_the_published_one_as_unknown() -> None:
    failed = Scan("n1", 0.0, 0.1, (), "driver gone")

    merged = with_live_scan(view(BUSY), failed, 990.0)
    (gpu,) = node_status(merged, UsagePolicy(1024), live=True).gpus

    assert gpu.state is GpuState.UNKNOWN
    assert gpu.unknown_reason == NOTHING_READ
    assert gpu.reading is not None
    assert gpu.reading.processes == ()


def test_a_live_scan_takes_the_place_of_the_published_one() -> None:
    merged = with_live_scan(view(BUSY), Scan("n1", 0.0, 0.1, (FREE,)), 990.0)

    status = node_status(merged, UsagePolicy(1024), live=True)

    assert (status.live, status.scanned_at, status.fault) == (True, 990.0, None)
    assert status.gpus[0].state is GpuState.AVAILABLE


def test_what_a_live_scan_finds_unhealthy_is_not_available() -> None:
    free = view(FREE)

    (found,) = node_status(
        with_unhealthy(free, {FREE.uuid: "row remap pending"}), UsagePolicy(1024), live=True
    ).gpus

    assert found.state is GpuState.QUARANTINED
    assert found.quarantine == Quarantine(FREE.uuid, "row remap pending", free.read_at, "health")


def test_what_somebody_quarantined_keeps_that_reason() -> None:
    by_hand = Quarantine(FREE.uuid, "fan", 1.0, "root")
    held = replace(view(FREE), quarantines={FREE.uuid: by_hand})

    assert with_unhealthy(held, {FREE.uuid: "ecc"}).quarantines == {FREE.uuid: by_hand}
    assert with_unhealthy(held, {}) == held


def test_the_intruders_are_those_whom_the_reservation_does_not_cover() -> None:
    alices = GpuProcess(1, 1001, "alice", "x", 10)
    bobs = replace(alices, pid=2, uid=7, user="bob", memory_mb=1025)
    xorg = GpuProcess(3, 0, "root", "Xorg", 10)
    policy = UsagePolicy(1024, frozenset({"Xorg"}))
    shared = replace(FREE, processes=(alices, bobs, xorg))
    other = replace(shared, index=1, uuid="GPU-b")

    first, second = node_status(view(shared, other, reservations=RESERVED), policy).gpus

    assert (first.intruders, first.ignored, first.processes) == ((bobs,), (xorg,), (alices, bobs))
    # On a GPU that nobody has reserved there is nobody to intrude upon.
    assert (second.intruders, second.ignored) == ((), (xorg,))


def test_a_reading_in_doubt_accuses_nobody() -> None:
    before_grant = view(BUSY, reservations=RESERVED, scanned_at=499.0)

    (gpu,) = node_status(before_grant, UsagePolicy(1024)).gpus

    assert (gpu.intruders, gpu.processes, gpu.models) == ((), (), ())


def test_a_run_is_known_by_its_pids_of_this_boot_alone() -> None:
    claim = Claim("run:1", "run", "alice", 1001, boot_id="b1", processes=(ProcessId(7, 1),))
    held = view(BUSY, reservations={UUID: Reservation(UUID, claim, 500.0)})

    def intruders(boot_id: str) -> int:
        (gpu,) = node_status(held, UsagePolicy(1024), pid_namespace=PidNamespace(boot_id)).gpus
        return len(gpu.intruders)

    assert (intruders("b1"), intruders("b2")) == (0, 1)


@pytest.mark.parametrize(
    ("seen", "state", "reason"),
    [
        (view(FREE), GpuState.AVAILABLE, ""),
        (view(BUSY, scanned_at=NOW), GpuState.UNRESERVED, ""),
        (view(BUSY), GpuState.UNKNOWN, SCANNED_BEFORE_RELEASE),
    ],
)
def test_what_has_expired_is_reserved_no_more(seen: NodeView, state: GpuState, reason: str) -> None:
    held = {UUID: replace(RESERVED[UUID], expires_at=950.0)}

    (gpu,) = node_status(replace(seen, reservations=held), UsagePolicy(1024)).gpus

    assert (gpu.state, gpu.reservation, gpu.released_at, gpu.unknown_reason) == (
        state,
        None,
        950.0,
        reason,
    )


def test_what_expires_later_is_reserved() -> None:
    held = {UUID: replace(RESERVED[UUID], expires_at=NOW + 0.1)}

    (gpu,) = node_status(view(FREE, reservations=held), UsagePolicy(1024)).gpus

    assert gpu.state is GpuState.RESERVED


def test_who_gives_no_sign_of_life_waits_no_more() -> None:
    alive = Waiter("run:1", "alice", 1, 1, renewed_at=NOW - 59, lease_s=60)
    dead = Waiter("run:2", "bob", 2, 1, renewed_at=NOW - 60, lease_s=60)

    assert node_status(view(FREE, queue=(dead, alive)), UsagePolicy(1024)).queue == (alive,)


def test_mig_instances_stand_in_order_and_are_one_gpu() -> None:
    instances = tuple(
        replace(FREE, index=1, uuid=f"MIG-{place}", mig_index=place, parent_uuid="GPU-p")
        for place in (2, 0, 1)
    )

    status = node_status(view(*instances, FREE), UsagePolicy(1024), expected_gpus=3)

    assert [gpu.uuid for gpu in status.gpus] == [UUID, "MIG-0", "MIG-1", "MIG-2"]
    assert (status.found_gpus, status.lacks_gpus) == (2, True)


@pytest.mark.parametrize(
    ("found", "expected", "lacks"),
    [
        (view(FREE), 0, False),
        (view(FREE), 1, False),
        (view(FREE), 2, True),
        (view(fault="driver gone"), 2, False),
        (view(scan=None, reservations=RESERVED), 1, False),
    ],
)
def test_gpus_that_should_be_there(found: NodeView, expected: int, lacks: bool) -> None:
    assert node_status(found, UsagePolicy(1), expected_gpus=expected).lacks_gpus is lacks


def test_a_held_gpu_that_the_scan_lacks_keeps_its_index_unless_another_has_it() -> None:
    published = view(FREE, reservations=RESERVED)
    other = replace(FREE, uuid="GPU-b")

    def index(*found: GpuReading) -> list[int | None]:
        live = with_live_scan(published, Scan("n1", 0.0, 0.1, found), NOW)
        gpus = node_status(live, UsagePolicy(1024), live=True).gpus
        return [gpu.index for gpu in gpus if gpu.uuid == UUID]

    assert index() == [0]
    assert index(replace(other, index=1)) == [0]
    assert index(other) == [None]
    # The reading at its index that tells no UUID is this GPU, in one row.
    assert index(replace(FREE, uuid="", fault="GPU is lost")) == [0]


def test_a_node_should_have_the_gpus_that_it_had() -> None:
    published = view(FREE, most_gpus={UUID: 0, "GPU-b": 1})

    assert node_status(published, UsagePolicy(1024)).lacks_gpus
    assert node_status(published, UsagePolicy(1024)).expected_gpus == 2
    assert not node_status(published, UsagePolicy(1024), expected_gpus=1).lacks_gpus
