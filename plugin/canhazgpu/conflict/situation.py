"""What is in the way of a job on its node, GPU by GPU, and what could be done about it; pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from canhazgpu.conflict.policy import Cause
from canhazgpu.gpu.scan import GpuProcess, GpuReading
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import JobOwner, NodeView
from canhazgpu.refusal import vanished


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A GPU that the job cannot have, and why."""

    gpu: GpuReading
    cause: Cause


@dataclass(frozen=True, slots=True)
class Situation:
    """What keeps a job from its GPUs: were the `obstacles` gone, it could start.

    `clean` are the node's GPUs (UUIDs) that could be granted, the least recently released first.
    """

    obstacles: tuple[Obstacle, ...] = ()
    clean: tuple[str, ...] = ()
    blind: bool = False

    @property
    def causes(self) -> frozenset[Cause]:
        """Why the job cannot start; empty where it could."""
        if self.blind:
            return frozenset({Cause.BLIND})
        return frozenset(one.cause for one in self.obstacles)

    @property
    def processes(self) -> tuple[GpuProcess, ...]:
        """The processes on the GPUs in unreserved use, each once."""
        found = {
            process.pid: process
            for one in self.obstacles
            if one.cause is Cause.UNRESERVED
            for process in one.gpu.processes
        }
        return tuple(found.values())


def situation_of_given(
    wanted: Sequence[str], observation: Observation, view: NodeView, owner: JobOwner
) -> Situation:
    """Return what is in the way of a job that is to have exactly these GPUs (UUIDs)."""
    if observation.scan.fault is not None:
        return Situation(blind=True)
    obstacles, clean = _sorted_out(observation, view, owner)
    absent = [vanished(uuid) for uuid in wanted if uuid not in observation.scan.by_uuid()]
    return Situation(
        (
            *(one for one in obstacles if one.gpu.uuid in wanted),
            *(Obstacle(gpu, Cause.ABSENT) for gpu in absent),
        ),
        clean,
    )


def situation_of_count(
    count: int,
    observation: Observation,
    view: NodeView,
    owner: JobOwner,
    may_clear: Callable[[GpuReading], bool] = lambda gpu: False,
) -> Situation:
    """Return what is in the way of a job that is to have any `count` GPUs.

    Of all that are not clean these are those that come free most easily: first those that
    `may_clear` finds to be cleared by ending processes.
    """
    if observation.scan.fault is not None:
        return Situation(blind=True)
    obstacles, clean = _sorted_out(observation, view, owner)
    lacking = max(count - len(clean), 0)
    ease = {cause: place for place, cause in enumerate(Cause)}

    def effort(one: Obstacle) -> tuple[int, bool]:
        return ease[one.cause], one.cause is Cause.UNRESERVED and not may_clear(one.gpu)

    chosen = sorted(obstacles, key=effort)[:lacking]
    if len(chosen) < lacking:
        chosen.append(Obstacle(vanished(""), Cause.ABSENT))
    return Situation(tuple(chosen), clean)


def _sorted_out(
    observation: Observation, view: NodeView, owner: JobOwner
) -> tuple[list[Obstacle], tuple[str, ...]]:
    obstacles, clean = [], []
    for gpu in observation.scan.gpus:
        cause = _cause(gpu, observation, view, owner)
        if cause is not None:
            obstacles.append(Obstacle(gpu, cause))
        else:
            clean.append(gpu)
    clean.sort(key=lambda gpu: (view.released_at.get(gpu.uuid, 0.0), gpu.index))
    return obstacles, tuple(gpu.uuid for gpu in clean)


def _cause(
    gpu: GpuReading, observation: Observation, view: NodeView, owner: JobOwner
) -> Cause | None:
    held = view.reservations.get(gpu.uuid)
    if held is not None and not owner.covers(held.claim.owner):
        return Cause.RESERVED
    if gpu.uuid in view.quarantines or gpu.uuid in observation.unhealthy:
        return Cause.QUARANTINED
    if not gpu.uuid or gpu.uuid in observation.unknown:
        return Cause.UNREADABLE
    return Cause.UNRESERVED if gpu.uuid in observation.in_use else None


def substitutes(wanted: Sequence[str], situation: Situation, count: int) -> tuple[str, ...] | None:
    """Return `count` clean GPUs for a job, of those it was to have as many as are clean.

    None where there are not enough. The others are the least recently released.
    """
    kept = [uuid for uuid in wanted if uuid in situation.clean]
    others = [uuid for uuid in situation.clean if uuid not in kept]
    chosen = (*kept, *others)[:count]
    return chosen if len(chosen) == count else None


def targets_on(gpu: GpuReading, usage: UsagePolicy) -> tuple[GpuProcess, ...]:
    """Return the processes whose end would free the GPU: all that count."""
    return tuple(one for one in gpu.processes if not usage.ignores(one))


def can_be_cleared(
    obstacles: Iterable[Obstacle], spared: Mapping[int, str], usage: UsagePolicy
) -> bool:
    """Tell whether ending processes would free all these GPUs.

    `spared` says by pid why a process is not to be ended, "" where it may be.
    """
    for one in obstacles:
        targets = targets_on(one.gpu, usage)
        if one.cause is not Cause.UNRESERVED or not targets:
            return False
        if any(spared.get(process.pid, "it is not known") for process in targets):
            return False
    return True


def since_text(
    situation: Situation, started_at: Mapping[int, float], written: Callable[[float], str]
) -> str:
    """Return since when the first GPU in unreserved use has been, `` (since 13:31)``, if known."""
    for one in situation.obstacles:
        if one.cause is Cause.UNRESERVED:
            times = [started_at[p.pid] for p in one.gpu.processes if p.pid in started_at]
            return f" (since {written(min(times))})" if times else ""
    return ""


def usable(wanted: Collection[str], situation: Situation) -> tuple[str, ...]:
    """Return those of the wanted GPUs that a job that runs all the same can hold in the ledger."""
    unusable = {one.gpu.uuid for one in situation.obstacles if one.cause is not Cause.UNRESERVED}
    return tuple(uuid for uuid in wanted if uuid not in unusable)
