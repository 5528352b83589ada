"""What is in the way of a job on its node, GPU by GPU, and what could be done about it; pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from canhazgpu.conflict.policy import ConflictCause
from canhazgpu.gpu.scan import GpuProcess, GpuReading, missing_gpu_reading
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import JobOwner, NodeView


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A GPU that the job cannot have, and why."""

    gpu: GpuReading
    cause: ConflictCause


@dataclass(frozen=True, slots=True)
class JobConflict:
    """What keeps a job from its GPUs: were the `obstacles` gone, it could start.

    `clean` are the node's GPUs (UUIDs) that could be granted, the least recently released first.
    """

    obstacles: tuple[Obstacle, ...] = ()
    clean: tuple[str, ...] = ()
    scan_failed: bool = False

    @property
    def causes(self) -> frozenset[ConflictCause]:
        """Why the job cannot start; empty where it could."""
        if self.scan_failed:
            return frozenset({ConflictCause.NO_GPU_READABLE})
        return frozenset(one.cause for one in self.obstacles)

    @property
    def processes(self) -> tuple[GpuProcess, ...]:
        """The processes on the GPUs in unreserved use, each once."""
        found = {
            process.pid: process
            for one in self.obstacles
            if one.cause is ConflictCause.UNRESERVED
            for process in one.gpu.processes
        }
        return tuple(found.values())


def conflict_for_given(
    wanted: Sequence[str], observation: Observation, view: NodeView, owner: JobOwner
) -> JobConflict:
    """Return what is in the way of a job that is to have exactly these GPUs (UUIDs)."""
    if observation.scan.fault is not None:
        return JobConflict(scan_failed=True)
    obstacles, clean = _obstacles_and_clean(observation, view, owner)
    absent = [
        missing_gpu_reading(uuid) for uuid in wanted if uuid not in observation.scan.by_uuid()
    ]
    return JobConflict(
        (
            *(one for one in obstacles if one.gpu.uuid in wanted),
            *(Obstacle(gpu, ConflictCause.ABSENT) for gpu in absent),
        ),
        clean,
    )


def conflict_for_count(
    count: int,
    observation: Observation,
    view: NodeView,
    owner: JobOwner,
    may_clear: Callable[[GpuReading], bool] = lambda gpu: False,
) -> JobConflict:
    """Return what is in the way of a job that is to have any `count` GPUs.

    Of all that are not clean these are those that come free most easily: first those that
    `may_clear` finds to be cleared by ending processes.
    """
    if observation.scan.fault is not None:
        return JobConflict(scan_failed=True)
    obstacles, clean = _obstacles_and_clean(observation, view, owner)
    lacking = max(count - len(clean), 0)
    ease = {cause: place for place, cause in enumerate(ConflictCause)}

    def effort(one: Obstacle) -> tuple[int, bool]:
        return ease[one.cause], one.cause is ConflictCause.UNRESERVED and not may_clear(one.gpu)

    chosen = sorted(obstacles, key=effort)[:lacking]
    if len(chosen) < lacking:
        chosen.append(Obstacle(missing_gpu_reading(""), ConflictCause.ABSENT))
    return JobConflict(tuple(chosen), clean)


def _obstacles_and_clean(
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
) -> ConflictCause | None:
    held = view.reservations.get(gpu.uuid)
    if held is not None and not owner.covers(held.claim.owner):
        return ConflictCause.RESERVED
    if gpu.uuid in view.quarantines or gpu.uuid in observation.unhealthy:
        return ConflictCause.QUARANTINED
    if not gpu.uuid or gpu.uuid in observation.unknown:
        return ConflictCause.UNREADABLE
    return ConflictCause.UNRESERVED if gpu.uuid in observation.in_use else None


def swap_gpus(wanted: Sequence[str], situation: JobConflict, count: int) -> tuple[str, ...] | None:
    """Return `count` clean GPUs for a job, of those it was to have as many as are clean.

    None where there are not enough. The others are the least recently released.
    """
    kept = [uuid for uuid in wanted if uuid in situation.clean]
    others = [uuid for uuid in situation.clean if uuid not in kept]
    chosen = (*kept, *others)[:count]
    return chosen if len(chosen) == count else None


def processes_to_end(gpu: GpuReading, usage: UsagePolicy) -> tuple[GpuProcess, ...]:
    """Return the processes whose end would free the GPU: all that count."""
    return tuple(one for one in gpu.processes if not usage.ignores(one))


def can_be_freed_by_kill(
    obstacles: Iterable[Obstacle], spared: Mapping[int, str], usage: UsagePolicy
) -> bool:
    """Tell whether ending processes would free all these GPUs.

    `spared` says by pid why a process is not to be ended, "" where it may be.
    """
    for one in obstacles:
        targets = processes_to_end(one.gpu, usage)
        if one.cause is not ConflictCause.UNRESERVED or not targets:
            return False
        if any(spared.get(process.pid, "it is not known") for process in targets):
            return False
    return True


def in_use_since_text(
    situation: JobConflict, started_at: Mapping[int, float], written: Callable[[float], str]
) -> str:
    """Return since when the first GPU in unreserved use has been, `` (since 13:31)``, if known."""
    for one in situation.obstacles:
        if one.cause is ConflictCause.UNRESERVED:
            times = [started_at[p.pid] for p in one.gpu.processes if p.pid in started_at]
            return f" (since {written(min(times))})" if times else ""
    return ""


def reservable_gpus(wanted: Collection[str], situation: JobConflict) -> tuple[str, ...]:
    """Return those of the wanted GPUs that a job that runs all the same can hold in the ledger."""
    unusable = {
        one.gpu.uuid for one in situation.obstacles if one.cause is not ConflictCause.UNRESERVED
    }
    return tuple(uuid for uuid in wanted if uuid not in unusable)
