"""Could a waiter's GPUs be granted, now or when every reservation of the node has ended; pure."""

from __future__ import annotations

from collections.abc import Callable, Collection

from canhazgpu.allocation.gpu_choice import has_profile
from canhazgpu.allocation.refusal import (
    Refusal,
    RefusalKind,
    gpu_obstacle_text,
    too_few_gpus_text,
)
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuProcess, GpuReading
from canhazgpu.ledger.grant_answers import TooFewGpus
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import NodeView, Reservation, Waiter

OtherUse = Callable[[Reservation, GpuReading], tuple[GpuProcess, ...]]
"""Returns the processes that use a reserved GPU and that its reservation does not cover."""


@dataclass(frozen=True, slots=True)
class Feasibility:
    """The GPUs that a waiter could get, by one scan.

    `obstructed` has, for each GPU that no release of a reservation would make free, the sentence
    that says why. `counts` are those of the GPUs that could serve the waiter.
    """

    counts: TooFewGpus
    obstructed: tuple[str, ...]
    names_gpus: bool = False

    @property
    def can_be_served_now(self) -> bool:
        """Whether enough GPUs are free and clean."""
        return self.counts.available >= self.counts.requested

    @property
    def is_obstructed(self) -> bool:
        """Whether the end of every reservation would not be enough."""
        usable = self.counts.available + self.counts.reserved
        return usable < self.counts.requested and bool(self.obstructed)

    @property
    def sentence(self) -> str:
        """The sentence for too few GPUs; empty where the waiter can be served."""
        return "" if self.can_be_served_now else too_few_gpus_text(self.counts)

    @property
    def refusal(self) -> Refusal:
        """The refusal for a waiter that cannot be served; who names GPUs is told of these."""
        if self.names_gpus and self.obstructed:
            first, *others = self.obstructed
            return Refusal(first, tuple(others), RefusalKind.OBSTRUCTED)
        return Refusal(self.sentence, self.obstructed, RefusalKind.OBSTRUCTED)


def feasibility(
    view: NodeView,
    observation: Observation,
    waiter: Waiter,
    other_use: OtherUse,
    *,
    force: bool = False,
) -> Feasibility:
    """Return the waiter's feasibility; with `force` use without reservation is no obstacle.

    `observation` is the view's scan. Use that it saw on a GPU which was released since is none.
    """
    wanted = [gpu for gpu in observation.scan.gpus if _could_serve(gpu, waiter)]
    groups: dict[str, list[GpuReading]] = {}
    texts = []
    for gpu in wanted:
        others = _others(view, gpu, other_use)
        why = _obstacle(view, observation, gpu, others, force=force)
        groups.setdefault(why, []).append(gpu)
        if why in ("quarantined", "unknown", "unreserved"):
            texts.append(gpu_obstacle_text(gpu, view, observation, others))
    counts = TooFewGpus(
        requested=len(waiter.gpus) or waiter.count,
        **{
            name: len(groups.get(name, ()))
            for name in ("available", "reserved", "unreserved", "quarantined", "stale", "unknown")
        },
    )
    return Feasibility(counts, tuple(texts), names_gpus=bool(waiter.gpus))


def _could_serve(gpu: GpuReading, waiter: Waiter) -> bool:
    if waiter.gpus:
        return gpu.uuid in waiter.gpus
    return has_profile(gpu, waiter.profile)


def _others(view: NodeView, gpu: GpuReading, other_use: OtherUse) -> tuple[GpuProcess, ...]:
    reservation = view.reservations.get(gpu.uuid)
    return other_use(reservation, gpu) if reservation is not None else ()


def _obstacle(
    view: NodeView,
    observation: Observation,
    gpu: GpuReading,
    others: Collection[GpuProcess],
    *,
    force: bool,
) -> str:
    """Return why the GPU is not available, as `BlockedGpu.why`; ``available`` where it is."""
    if gpu.uuid in view.quarantines or gpu.uuid in observation.unhealthy:
        return "quarantined"
    reserved = gpu.uuid in view.reservations
    if not reserved and (not gpu.uuid or gpu.uuid in observation.unknown):
        return "unknown"
    if reserved:
        return "unreserved" if others and not force else "reserved"
    if gpu.uuid not in observation.in_use or force:
        return "available"
    # A process of the last owner may have been on it: the scan is older than the release.
    seen_before_release = view.released_at.get(gpu.uuid, 0.0) >= (view.scanned_at or 0.0)
    return "stale" if seen_before_release else "unreserved"
