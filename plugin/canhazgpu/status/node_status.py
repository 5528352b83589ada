"""What a node's GPUs are, the ledger's view and a scan taken together; pure.

An error never means available: a GPU that cannot be read, that the scan says nothing of, or whose
scan is older than its release is unknown, and one that the ledger holds is never left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import GpuState, Usage, UsagePolicy, gpu_state, judge_usage
from canhazgpu.ledger.values import NodeView, Quarantine, Reservation, Waiter
from canhazgpu.status.coverage import ANY_PID_NAMESPACE, PidNamespace, is_intruder

NEVER_SCANNED = "never scanned"
NOT_FOUND = "not found by the scan"
NO_UUID = "its UUID cannot be read"
IMPOSSIBLE_VALUES = "the driver reports amounts or processes that cannot be"
SCANNED_BEFORE_RELEASE = "scanned before its release"
SCANNED_BEFORE_GRANT = "not scanned since it was reserved"


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """One GPU in its one state, with what led to it.

    `index` and `reading` are None for a GPU that only the ledger knows. `doubt` says why the
    reading tells nothing of the present, empty where it does; `usage` is then unknown.
    `released_at` is the time of its last release, None where it was never released. `ignored`
    holds the processes that do not count as use, and `intruders` those on a reserved GPU that its
    reservation does not cover; both are empty where there is a doubt.
    """

    index: int | None
    uuid: str
    state: GpuState
    usage: Usage
    reading: GpuReading | None = None
    reservation: Reservation | None = None
    quarantine: Quarantine | None = None
    released_at: float | None = None
    doubt: str = ""
    ignored: tuple[GpuProcess, ...] = ()
    intruders: tuple[GpuProcess, ...] = ()

    @property
    def processes(self) -> tuple[GpuProcess, ...]:
        """The processes that count as use, as far as the reading tells of the present."""
        if self.reading is None or self.doubt:
            return ()
        return tuple(one for one in self.reading.processes if one not in self.ignored)

    @property
    def models(self) -> tuple[str, ...]:
        """The models that those processes name, each once, in order."""
        return tuple(dict.fromkeys(one.model for one in self.processes if one.model))


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node's GPUs in order of their place, those without one last, and who waits for some.

    Times are of the store's clock; `read_at` is "now" for every duration. `live` where the scan
    was made for this answer, by `source`. `fault` says why the node as a whole could not be read.
    `expected_gpus` is how many the node should have, 0 where nobody says.
    """

    node: str
    read_at: float
    scanned_at: float | None
    live: bool
    fault: str | None
    gpus: tuple[GpuStatus, ...]
    queue: tuple[Waiter, ...] = ()
    source: str | None = None
    expected_gpus: int = 0

    @property
    def found_gpus(self) -> int:
        """How many GPUs the scan found; MIG instances are one with the GPU that they divide."""
        return len({gpu.index for gpu in self.gpus if gpu.index is not None})

    @property
    def lacks_gpus(self) -> bool:
        """Whether the scan worked and found fewer GPUs than the node should have."""
        return self.fault is None and self.found_gpus < self.expected_gpus


def with_live_scan(view: NodeView, scan: Scan, scanned_at: float) -> NodeView:
    """Return the view with this scan in place of the published one.

    A scan that could read nothing keeps the GPUs that the published one listed, each unreadable.
    """
    if scan.fault is not None and not scan.gpus and view.scan is not None:
        lost = tuple(
            replace(gpu, memory_used_mb=None, processes=(), fault=scan.fault)
            for gpu in view.scan.gpus
        )
        scan = replace(scan, gpus=lost)
    return replace(view, scan=scan, scanned_at=scanned_at)


def with_unhealthy(view: NodeView, unhealthy: Mapping[str, str]) -> NodeView:
    """Return the view in which what a live scan found unhealthy is quarantined already.

    The next grant would do it: such a GPU is not available. What is quarantined stays as it is.
    """
    found = {gpu: Quarantine(gpu, reason, view.read_at) for gpu, reason in unhealthy.items()}
    return replace(view, quarantines={**found, **view.quarantines})


def node_status(
    view: NodeView,
    policy: UsagePolicy,
    *,
    live: bool = False,
    space: PidNamespace = ANY_PID_NAMESPACE,
    expected_gpus: int = 0,
) -> NodeStatus:
    """Judge every GPU that the node's scan or the ledger knows; `space` is that of its pids."""
    view = _without_expired(view)
    scan = view.scan
    readings = scan.gpus if scan else ()
    gpus = [_scanned_gpu_status(view, reading, policy, space) for reading in readings]
    fault = scan.fault if scan else NEVER_SCANNED
    seen = {reading.uuid for reading in readings}
    held = {**view.quarantines, **view.reservations}
    gpus += [
        _unscanned_gpu_status(view, uuid, fault or NOT_FOUND)
        for uuid in sorted(held)
        if uuid not in seen
    ]
    return NodeStatus(
        view.node,
        view.read_at,
        view.scanned_at,
        live,
        fault,
        tuple(sorted(gpus, key=_display_order)),
        view.queue,
        scan.source if scan else None,
        expected_gpus,
    )


def _without_expired(view: NodeView) -> NodeView:
    """Leave out what has expired and who waits no more; the next change of the ledger will too."""
    now = view.read_at
    over = {
        uuid: one.expires_at
        for uuid, one in view.reservations.items()
        if one.expires_at is not None and one.expires_at <= now
    }
    return replace(
        view,
        reservations={uuid: one for uuid, one in view.reservations.items() if uuid not in over},
        released_at={**view.released_at, **over},
        queue=tuple(one for one in view.queue if one.renewed_at + one.lease_s > now),
    )


def _display_order(gpu: GpuStatus) -> tuple[bool, int, int]:
    reading = gpu.reading
    if reading is None:
        return (True, 0, 0)
    return (False, reading.index, -1 if reading.mig_index is None else reading.mig_index)


def _scanned_gpu_status(
    view: NodeView, reading: GpuReading, policy: UsagePolicy, space: PidNamespace
) -> GpuStatus:
    usage = judge_usage(reading, policy)
    doubt = _unknown_reason(view, reading, usage)
    if doubt:
        return _gpu_status(view, reading.uuid, Usage.UNKNOWN, reading=reading, doubt=doubt)
    status = _gpu_status(view, reading.uuid, usage, reading=reading, doubt="")
    return replace(
        status,
        ignored=tuple(one for one in reading.processes if policy.ignores(one)),
        intruders=_intruders(
            status.reservation, policy.counted_processes(reading.processes), space
        ),
    )


def _intruders(
    reservation: Reservation | None, processes: tuple[GpuProcess, ...], space: PidNamespace
) -> tuple[GpuProcess, ...]:
    if reservation is None:
        return ()
    claim = reservation.claim
    return tuple(one for one in processes if is_intruder(claim, one, space))


def _unscanned_gpu_status(view: NodeView, uuid: str, doubt: str) -> GpuStatus:
    return _gpu_status(view, uuid, Usage.UNKNOWN, reading=None, doubt=doubt)


def _gpu_status(
    view: NodeView, uuid: str, usage: Usage, *, reading: GpuReading | None, doubt: str
) -> GpuStatus:
    reservation = view.reservations.get(uuid)
    quarantine = view.quarantines.get(uuid)
    return GpuStatus(
        index=reading.index if reading else None,
        uuid=uuid,
        state=gpu_state(
            usage, reserved=reservation is not None, quarantined=quarantine is not None
        ),
        usage=usage,
        reading=reading,
        reservation=reservation,
        quarantine=quarantine,
        released_at=view.released_at.get(uuid),
        doubt=doubt,
    )


def _unknown_reason(view: NodeView, reading: GpuReading, usage: Usage) -> str:
    """Return why this reading does not tell what the GPU does now, empty where it does."""
    if usage is Usage.UNKNOWN:
        return reading.fault or (IMPOSSIBLE_VALUES if reading.uuid else NO_UUID)
    scanned_at = view.scanned_at
    if scanned_at is None:
        return NEVER_SCANNED
    reservation = view.reservations.get(reading.uuid)
    if reservation is not None:
        return SCANNED_BEFORE_GRANT if reservation.granted_at > scanned_at else ""
    released_at = view.released_at.get(reading.uuid)
    if usage is Usage.IN_USE and released_at is not None and released_at > scanned_at:
        return SCANNED_BEFORE_RELEASE
    return ""
