"""The status of a node's GPUs, by the ledger's view and a scan together; pure.

An error never means available. A GPU is unknown if it cannot be read, if the scan does not have it,
or if it was in use in a scan older than its release. A GPU that only the ledger knows is listed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from canhazgpu.allocation.coverage import ANY_PID_NAMESPACE, PidNamespace
from canhazgpu.allocation.intruders import NO_OTHERS, OtherProcesses, other_processes
from canhazgpu.frozen_dataclass import dataclass, quick_constructor
from canhazgpu.gpu.health import with_known_uuids
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import GpuState, Usage, UsagePolicy, gpu_state, judge_usage
from canhazgpu.ledger.values import NodeView, Quarantine, Reservation, Waiter
from canhazgpu.people.holdings import current_reservations, current_waiters

NEVER_SCANNED = "never scanned"
NOTHING_READ = "the GPUs could not be read"
NOT_FOUND = "not found by the scan"
NO_UUID = "its UUID cannot be read"
IMPOSSIBLE_VALUES = "the driver reports amounts or processes that cannot be"
SCANNED_BEFORE_RELEASE = "scanned before its release"
SCANNED_BEFORE_GRANT = "not scanned since it was reserved"


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """One GPU: its state, and the facts that the state follows from.

    `reading` is None for a GPU that only the ledger knows; its `index` is then the one that it had,
    None where that is not known or another GPU has it now. `unknown_reason` says why
    the reading does not show the present use, and is empty where it does; with a reason, `usage`
    is unknown. `released_at` is the time of the last release, None for a GPU never released.
    `ignored` are the processes that do not count as use. `others` are those on a reserved GPU that
    its reservations do not cover. Both are empty with an `unknown_reason`.
    """

    index: int | None
    uuid: str
    state: GpuState
    usage: Usage
    reading: GpuReading | None = None
    reservation: Reservation | None = None
    quarantine: Quarantine | None = None
    released_at: float | None = None
    unknown_reason: str = ""
    ignored: tuple[GpuProcess, ...] = ()
    others: OtherProcesses = NO_OTHERS

    @property
    def lacks_reservation_only(self) -> bool:
        """Whether its use is known, and only its reservation is not."""
        return (
            self.state is GpuState.UNKNOWN and self.reading is not None and not self.unknown_reason
        )

    @property
    def intruders(self) -> tuple[GpuProcess, ...]:
        """The processes that use a reserved GPU which is not theirs."""
        return self.others.intruders

    @property
    def holders(self) -> tuple[Reservation, ...]:
        """The reservation of each owner of the GPU, the earliest first."""
        return self.reservation.holders if self.reservation else ()

    @property
    def processes(self) -> tuple[GpuProcess, ...]:
        """The processes that count as use, none where the reading does not show the present."""
        if self.reading is None or self.unknown_reason:
            return ()
        return tuple(one for one in self.reading.processes if one not in self.ignored)

    @property
    def utilization_percent(self) -> int | None:
        """The GPU's utilization by the reading; None where it does not show the present use."""
        return (
            None
            if self.reading is None or self.unknown_reason
            else self.reading.utilization_percent
        )

    @property
    def models(self) -> tuple[str, ...]:
        """The models that those processes name, in order, each once."""
        return tuple(dict.fromkeys(one.model for one in self.processes if one.model))


_new_gpu_status = quick_constructor(GpuStatus)


@dataclass(frozen=True, slots=True)
class HooksOutage:
    """The node's hooks found the store away: since when (seconds since the epoch), and why."""

    since: float
    reason: str


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node's GPUs by index, those without one last, and its queue.

    Times are of the clock of Redis; `read_at` is "now" for every duration. `live` says that the
    scan was made for this status. `source` made the scan. `fault` says why no GPU could be read.
    `expected_gpus` is the number of GPUs that the node should have, or had; 0 where it is not
    known. Without `reservations_known` the store did not serve: a GPU that nobody is known to hold
    may be reserved. `hooks_outage` is what the node's hooks found, None if they reach the store.
    `filtered_out` are the GPUs that a filter does not show. `partitions` are the scheduler's
    partitions of the node as it published them at `partitions_at`, None where it never did.
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
    reservations_known: bool = True
    hooks_outage: HooksOutage | None = None
    filtered_out: tuple[GpuStatus, ...] = ()
    partitions: tuple[str, ...] | None = None
    partitions_at: float | None = None

    @property
    def all_gpus(self) -> tuple[GpuStatus, ...]:
        """The GPUs that a filter shows, then those that it does not."""
        return (*self.gpus, *self.filtered_out)

    @property
    def found_gpus(self) -> int:
        """The number of GPUs in the scan; MIG instances count as the GPU that they divide."""
        return len({gpu.index for gpu in self.all_gpus if gpu.reading is not None})

    @property
    def lacks_gpus(self) -> bool:
        """Whether the scan worked and found fewer GPUs than the node should have."""
        return self.fault is None and self.found_gpus < self.expected_gpus


def with_live_scan(view: NodeView, scan: Scan, scanned_at: float) -> NodeView:
    """Return the view with this scan in place of the published one.

    Where the scan could read nothing, the view has the GPUs of the published one, none of them
    readable. The scan's fault says why, once.
    """
    if scan.fault is not None and not scan.gpus and view.scan is not None:
        lost = tuple(
            replace(gpu, memory_used_mb=None, processes=(), fault=NOTHING_READ)
            for gpu in view.scan.gpus
        )
        scan = replace(scan, gpus=lost)
    known = view.known_gpus
    return replace(view, scan=with_known_uuids(known, scan), scanned_at=scanned_at, most_gpus=known)


def with_unhealthy(view: NodeView, unhealthy: Mapping[str, str]) -> NodeView:
    """Return the view with the GPUs quarantined that a live scan found unhealthy.

    The next grant would quarantine them, so they are not available. Existing quarantines stay.
    """
    found = {gpu: Quarantine(gpu, reason, view.read_at) for gpu, reason in unhealthy.items()}
    return replace(view, quarantines={**found, **view.quarantines})


def node_status(
    view: NodeView,
    policy: UsagePolicy,
    *,
    live: bool = False,
    pid_namespace: PidNamespace = ANY_PID_NAMESPACE,
    expected_gpus: int = 0,
    reservations_known: bool = True,
) -> NodeStatus:
    """Judge every GPU that the scan or the ledger knows; the scan's pids are of `pid_namespace`.

    Without `reservations_known` the view may lack reservations, so that no GPU is available.
    """
    view = _without_expired(view)
    scan = view.scan
    readings = scan.gpus if scan else ()
    gpus = [_scanned_gpu_status(view, reading, policy, pid_namespace) for reading in readings]
    fault = scan.fault if scan else NEVER_SCANNED
    absence = NEVER_SCANNED if scan is None else NOTHING_READ if scan.fault else NOT_FOUND
    seen = {reading.uuid for reading in readings}
    held = {**view.quarantines, **view.reservations}
    free_indices = set(view.known_gpus.values()) - {reading.index for reading in readings}
    gpus += [
        _unscanned_gpu_status(view, uuid, absence, free_indices)
        for uuid in sorted(held)
        if uuid not in seen
    ]
    if not reservations_known:
        gpus = [_without_known_reservation(gpu) for gpu in gpus]
    return NodeStatus(
        view.node,
        view.read_at,
        view.scanned_at,
        live,
        fault,
        tuple(sorted(gpus, key=_display_order)),
        view.queue,
        scan.source if scan else None,
        expected_gpus or len(view.known_gpus),
        reservations_known,
        partitions=view.partitions,
        partitions_at=view.partitions_at,
    )


def _without_known_reservation(gpu: GpuStatus) -> GpuStatus:
    if gpu.state in (GpuState.AVAILABLE, GpuState.UNRESERVED):
        return replace(gpu, state=GpuState.UNKNOWN)
    return gpu


def _without_expired(view: NodeView) -> NodeView:
    """Leave out expired reservations and waiters, as the next change of the ledger will."""
    current, waiters = current_reservations(view), current_waiters(view)
    if len(waiters) == len(view.queue) and current == view.reservations:
        return view
    expired = {
        uuid: one.expires_at
        for uuid, one in view.reservations.items()
        if uuid not in current and one.expires_at is not None
    }
    return replace(
        view,
        reservations=current,
        released_at={**view.released_at, **expired},
        queue=waiters,
    )


def _display_order(gpu: GpuStatus) -> tuple[bool, int, int]:
    if gpu.index is None:
        return (True, 0, 0)
    mig_index = gpu.reading.mig_index if gpu.reading else None
    return (False, gpu.index, -1 if mig_index is None else mig_index)


def _scanned_gpu_status(
    view: NodeView, reading: GpuReading, policy: UsagePolicy, pid_namespace: PidNamespace
) -> GpuStatus:
    usage = judge_usage(reading, policy)
    unknown_reason = _unknown_reason(view, reading, usage)
    if unknown_reason:
        return _gpu_status(
            view, reading.uuid, Usage.UNKNOWN, reading=reading, unknown_reason=unknown_reason
        )
    processes = reading.processes
    if not processes:
        return _gpu_status(view, reading.uuid, usage, reading=reading, unknown_reason="")
    held = view.reservations.get(reading.uuid)
    claims = [one.claim for one in held.holders] if held else []
    return _gpu_status(
        view,
        reading.uuid,
        usage,
        reading=reading,
        unknown_reason="",
        ignored=tuple([one for one in processes if policy.ignores(one)]),
        others=other_processes(claims, processes, policy, pid_namespace) if claims else NO_OTHERS,
    )


def _unscanned_gpu_status(
    view: NodeView, uuid: str, unknown_reason: str, free_indices: Collection[int]
) -> GpuStatus:
    status = _gpu_status(view, uuid, Usage.UNKNOWN, reading=None, unknown_reason=unknown_reason)
    had = view.known_gpus.get(uuid)
    return replace(status, index=had if had in free_indices else None)


def _gpu_status(
    view: NodeView,
    uuid: str,
    usage: Usage,
    *,
    reading: GpuReading | None,
    unknown_reason: str,
    ignored: tuple[GpuProcess, ...] = (),
    others: OtherProcesses = NO_OTHERS,
) -> GpuStatus:
    reservation = view.reservations.get(uuid)
    quarantine = view.quarantines.get(uuid)
    return _new_gpu_status(
        reading.index if reading else None,
        uuid,
        gpu_state(usage, reserved=reservation is not None, quarantined=quarantine is not None),
        usage,
        reading,
        reservation,
        quarantine,
        view.released_at.get(uuid),
        unknown_reason,
        ignored,
        others,
    )


def _unknown_reason(view: NodeView, reading: GpuReading, usage: Usage) -> str:
    """Return why this reading does not show the present use, empty where it does."""
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
