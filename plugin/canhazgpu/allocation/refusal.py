"""Why GPUs were not granted, as texts for users; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from enum import Enum

from canhazgpu.allocation.gpu_choice import WHOLE_GPUS, GpuChoice
from canhazgpu.allocation.holder_text import holder_text
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuProcess, GpuReading, missing_gpu_reading
from canhazgpu.gpu.usage import memory_text, processes_text, users_text
from canhazgpu.ledger.grant_answers import BlockedGpu, QueuePosition, TooFewGpus
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import NodeView


class RefusalKind(Enum):
    """What a refusal depends on."""

    BUSY = "busy"
    """GPUs are in use: a release can change it."""
    QUEUED = "queued"
    """Others wait before in the queue."""
    OBSTRUCTED = "obstructed"
    """No release of a reservation can change it: quarantines, unreadable GPUs, use without
    reservation."""
    NEVER = "never"
    """Waiting cannot help: the node has too few GPUs."""
    FAULT = "fault"
    """The GPUs could not be read."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing was granted; `reason` is one sentence for the user.

    `details` has one sentence for each GPU that is not available.
    """

    reason: str
    details: tuple[str, ...] = ()
    kind: RefusalKind = RefusalKind.BUSY

    @property
    def text(self) -> str:
        """Reason and details on one line."""
        return "; ".join((self.reason, *self.details))


def build_refusal(
    answer: BlockedGpu | TooFewGpus,
    observation: Observation,
    view: NodeView,
    choice: GpuChoice = WHOLE_GPUS,
) -> Refusal:
    """Return the refusal, with the users and holders that the scan and the ledger name."""
    seen = observation.scan.by_uuid()
    if isinstance(answer, BlockedGpu):
        reading = without_ignored_processes(
            seen.get(answer.gpu) or missing_gpu_reading(answer.gpu), observation
        )
        return Refusal(_blocked_text(answer, reading, view), kind=_kind_of(answer))
    gpus = observation.scan.gpus
    candidates = choice.candidates(gpus)
    present = len(gpus) if candidates is None else len(candidates)
    if answer.requested > present:
        reason = choice.shortage_text(answer.requested, gpus, view.node)
        return Refusal(reason, kind=RefusalKind.NEVER)
    usable = present - answer.quarantined - answer.unknown
    kind = RefusalKind.BUSY if answer.requested <= usable else RefusalKind.OBSTRUCTED
    return Refusal(
        too_few_gpus_text(answer),
        tuple(_unavailable_gpu_texts(observation, view, candidates)),
        kind,
    )


def _kind_of(blocked: BlockedGpu) -> RefusalKind:
    held_back = blocked.why in ("quarantined", "unknown")
    return RefusalKind.OBSTRUCTED if held_back else RefusalKind.BUSY


def without_ignored_processes(gpu: GpuReading, observation: Observation) -> GpuReading:
    """Return the reading without the processes that do not count as use."""
    processes = tuple(one for one in gpu.processes if one.pid not in observation.ignored)
    return replace(gpu, processes=processes)


def _unavailable_gpu_texts(
    observation: Observation, view: NodeView, candidates: Collection[str] | None
) -> Iterator[str]:
    for gpu in observation.scan.gpus:
        if gpu.uuid in view.reservations or not (candidates is None or gpu.uuid in candidates):
            continue
        if gpu.uuid in view.quarantines:
            yield _quarantined_text(gpu, view)
        elif gpu.fault is not None or gpu.uuid in observation.unknown:
            yield _unknown_text(gpu, view.node)
        elif gpu.uuid in observation.in_use:
            yield unreserved_use_text(without_ignored_processes(gpu, observation), view.node)


def unreserved_use_refusal(intruded: Sequence[GpuReading], node: str) -> Refusal:
    """Return the refusal for GPUs that the second scan found in unreserved use."""
    first, *others = (unreserved_use_text(gpu, node) for gpu in intruded)
    return Refusal(first, tuple(others))


def queued_refusal(queued: QueuePosition, node: str) -> Refusal:
    """Return the refusal for an owner that is not first in the queue."""
    before = queued.position - 1
    who = "1 other waits" if before == 1 else f"{before} others wait"
    return Refusal(f"{who} for GPUs of {node}: see 'canhazgpu queue'", kind=RefusalKind.QUEUED)


def too_few_gpus_text(short: TooFewGpus) -> str:
    """Return the sentence for too few GPUs."""
    text = f"Not enough GPUs available. Requested: {short.requested}, Available: {short.available}"
    counted = (
        (short.unreserved, "GPUs in use without reservation"),
        (short.quarantined, "quarantined"),
        (short.unknown, "unreadable"),
    )
    why = ", ".join(f"{number} {what}" for number, what in counted if number)
    return f"{text} ({why} - run 'canhazgpu status' for details)" if why else text


def gpu_obstacle_text(
    gpu: GpuReading, view: NodeView, observation: Observation, others: tuple[GpuProcess, ...] = ()
) -> str:
    """Return why no release makes the GPU free: quarantine, unreadable, or used by `others`."""
    if gpu.uuid in view.quarantines:
        return _quarantined_text(gpu, view)
    if reason := observation.unhealthy.get(gpu.uuid):
        return f"{_gpu_text(gpu, view.node)} is unhealthy: {reason}"
    if others:
        return unreserved_use_text(replace(gpu, processes=others), view.node)
    if gpu.fault is not None or gpu.uuid in observation.unknown:
        return _unknown_text(gpu, view.node)
    return unreserved_use_text(without_ignored_processes(gpu, observation), view.node)


def _gpu_text(gpu: GpuReading, node: str) -> str:
    index = f"GPU {gpu.display_index}" if gpu.index >= 0 else "GPU"
    return f"{index} ({gpu.uuid}) on {node}"


def unreserved_use_text(gpu: GpuReading, node: str) -> str:
    """Return who uses the GPU without reservation, or why it cannot be read."""
    if gpu.fault is not None:
        return f"{_gpu_text(gpu, node)} cannot be read: {gpu.fault}"
    amount = gpu.held_memory_mb
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
