"""Pure: why GPUs were not granted, in the words that users know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from canhazgpu.duration_text import short_duration_text
from canhazgpu.gpu.scan import GpuReading, missing_gpu_reading
from canhazgpu.gpu.usage import memory_text, processes_text, users_text
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import BlockedGpu, NodeView, QueuePosition, Reservation, TooFewGpus


class RefusalKind(Enum):
    """What could change a refusal."""

    BUSY = "busy"
    """Somebody else's end."""
    QUEUED = "queued"
    """The turn of those who wait before."""
    NEVER = "never"
    """Nothing that waiting brings: the node lacks such GPUs, or theirs need somebody's hand."""
    FAULT = "fault"
    """The repair of what reads the GPUs."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing was granted; `reason` is one sentence for the user.

    `details` name who is in the way, one sentence for each GPU.
    """

    reason: str
    details: tuple[str, ...] = ()
    kind: RefusalKind = RefusalKind.BUSY

    @property
    def text(self) -> str:
        """All of it on one line."""
        return "; ".join((self.reason, *self.details))


def build_refusal(
    answer: BlockedGpu | TooFewGpus, observation: Observation, view: NodeView
) -> Refusal:
    """Return the refusal, with what the scan and the ledger know of who is in the way."""
    seen = observation.scan.by_uuid()
    if isinstance(answer, BlockedGpu):
        reading = without_ignored_processes(
            seen.get(answer.gpu) or missing_gpu_reading(answer.gpu), observation
        )
        return Refusal(_blocked_text(answer, reading, view), kind=_kind_of(answer))
    present = len(observation.scan.gpus)
    if answer.requested > present:
        reason = f"{view.node} has {present} GPUs; {answer.requested} were asked for"
        return Refusal(reason, kind=RefusalKind.NEVER)
    usable = present - answer.quarantined - answer.unknown
    kind = RefusalKind.BUSY if answer.requested <= usable else RefusalKind.NEVER
    return Refusal(
        too_few_gpus_text(answer), tuple(_unavailable_gpu_texts(observation, view)), kind
    )


def _kind_of(blocked: BlockedGpu) -> RefusalKind:
    held_back = blocked.why in ("quarantined", "unknown")
    return RefusalKind.NEVER if held_back else RefusalKind.BUSY


def without_ignored_processes(gpu: GpuReading, observation: Observation) -> GpuReading:
    """Return the reading without the processes that do not count: they are in nobody's way."""
    processes = tuple(one for one in gpu.processes if one.pid not in observation.ignored)
    return replace(gpu, processes=processes)


def _unavailable_gpu_texts(observation: Observation, view: NodeView) -> Iterator[str]:
    for gpu in observation.scan.gpus:
        if gpu.uuid in view.reservations:
            continue
        if gpu.uuid in view.quarantines:
            yield _quarantined_text(gpu, view)
        elif gpu.fault is not None or gpu.uuid in observation.unknown:
            yield _unknown_text(gpu, view.node)
        elif gpu.uuid in observation.in_use:
            yield unreserved_use_text(without_ignored_processes(gpu, observation), view.node)


def unreserved_use_refusal(intruded: Sequence[GpuReading], node: str) -> Refusal:
    """Return the refusal where the second look found somebody on these GPUs."""
    first, *others = (unreserved_use_text(gpu, node) for gpu in intruded)
    return Refusal(first, tuple(others))


def queued_refusal(queued: QueuePosition, node: str) -> Refusal:
    """Return the refusal of somebody whose turn it is not."""
    before = queued.position - 1
    who = "1 other waits" if before == 1 else f"{before} others wait"
    return Refusal(f"{who} for GPUs of {node}: see 'canhazgpu queue'", kind=RefusalKind.QUEUED)


def too_few_gpus_text(short: TooFewGpus) -> str:
    """Return the sentence users know for too few GPUs."""
    text = f"Not enough GPUs available. Requested: {short.requested}, Available: {short.available}"
    if short.unreserved:
        text += (
            f" ({short.unreserved} GPUs in use without reservation"
            " - run 'canhazgpu status' for details)"
        )
    return text


def _gpu_text(gpu: GpuReading, node: str) -> str:
    index = f"GPU {gpu.display_index}" if gpu.index >= 0 else "GPU"
    return f"{index} ({gpu.uuid}) on {node}"


def unreserved_use_text(gpu: GpuReading, node: str) -> str:
    """Return who is on a GPU without reservation, or why that cannot be told."""
    if gpu.fault is not None:
        return f"{_gpu_text(gpu, node)} cannot be read: {gpu.fault}"
    amount = gpu.memory_used_mb
    used = "memory unknown" if amount is None else f"{memory_text(amount)} used"
    if not gpu.processes:
        return f"{_gpu_text(gpu, node)} is in use WITHOUT RESERVATION: {used} by no process shown"
    return (
        f"{_gpu_text(gpu, node)} is in use by {users_text(gpu.processes)} WITHOUT RESERVATION:"
        f" {used} by {processes_text(gpu.processes)}"
    )


def _blocked_text(blocked: BlockedGpu, gpu: GpuReading, view: NodeView) -> str:
    node = view.node
    if blocked.why == "reserved" and blocked.holder is not None:
        return f"{_gpu_text(gpu, node)} is reserved by {holder_text(blocked.holder, view.read_at)}"
    if blocked.why == "quarantined" and gpu.uuid in view.quarantines:
        return _quarantined_text(gpu, view)
    if blocked.why == "unreserved":
        return unreserved_use_text(gpu, node)
    if blocked.why == "unknown":
        return _unknown_text(gpu, node)
    return f"{_gpu_text(gpu, node)} is {blocked.why}"


def _unknown_text(gpu: GpuReading, node: str) -> str:
    return f"{_gpu_text(gpu, node)} cannot be read: {gpu.fault or 'its state is unknown'}"


def _quarantined_text(gpu: GpuReading, view: NodeView) -> str:
    return f"{_gpu_text(gpu, view.node)} is quarantined: {view.quarantines[gpu.uuid].reason}"


def holder_text(holder: Reservation, now: float | None) -> str:
    """Return who holds a GPU: ``alice (slurm job 12)``, ``bob (manual, expires in 2h 5m)``.

    Without `now` nothing is said of the expiry, which changes with every look.
    """
    claim = holder.claim
    what = f"{claim.type} job {claim.job_id}" if claim.job_id else claim.type
    if holder.expires_at is not None and now is not None:
        what += f", expires in {short_duration_text(holder.expires_at - now)}"
    return f"{claim.user} ({what})"
