"""The GPUs that a job cannot have on its node, with the causes, and what would free them; pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from canhazgpu.conflict.policy import ConflictCause
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuProcess, GpuReading, missing_gpu_reading
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.co_holders import shares_with
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import Claim, NodeView


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A GPU that the job cannot have, with the cause."""

    gpu: GpuReading
    cause: ConflictCause


@dataclass(frozen=True, slots=True)
class JobConflict:
    """The obstacles between a job and its GPUs: without them it could start.

    `clean` are the node's GPUs (UUIDs) that could be granted, the least recently released first.
    `scan_failed` says that no GPU could be read.
    """

    obstacles: tuple[Obstacle, ...] = ()
    clean: tuple[str, ...] = ()
    scan_failed: bool = False

    @property
    def causes(self) -> frozenset[ConflictCause]:
        """The causes why the job cannot start; empty where it can."""
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
    wanted: Sequence[str],
    observation: Observation,
    view: NodeView,
    owner: JobOwner,
    among: Collection[str] | None = None,
    claim: Claim | None = None,
) -> JobConflict:
    """Return the conflict of a job that is to have exactly these GPUs (UUIDs).

    `among` are those that the job could have instead, None for all. With a share in its `claim`,
    jobs that share a GPU with it are no obstacle, nor is their use of it by the observation.
    """
    if observation.scan.fault is not None:
        return JobConflict(scan_failed=True)
    obstacles, clean = _obstacles_and_clean(observation, view, owner, among, claim)
    absent = [
        missing_gpu_reading(uuid) for uuid in wanted if uuid not in observation.scan.by_uuid()
    ]
    return JobConflict(
        (
            *(one for one in obstacles if one.gpu.uuid in wanted),
            *(Obstacle(gpu, ConflictCause.ABSENT) for gpu in absent),
        ),
        tuple(uuid for uuid in clean if among is None or uuid in among),
    )


def conflict_for_count(
    count: int,
    observation: Observation,
    view: NodeView,
    owner: JobOwner,
    may_clear: Callable[[GpuReading], bool] = lambda gpu: False,
    among: Collection[str] | None = None,
) -> JobConflict:
    """Return the conflict of a job that is to have any `count` GPUs `among` these, None for all.

    Its obstacles are as many GPUs as are lacking, those that come free most easily. GPUs in
    unreserved use come first, and of these the ones for which `may_clear` says that ending
    processes would free them.
    """
    if observation.scan.fault is not None:
        return JobConflict(scan_failed=True)
    obstacles, clean = _obstacles_and_clean(observation, view, owner, among)
    lacking = max(count - len(clean), 0)
    ease = {cause: rank for rank, cause in enumerate(ConflictCause)}

    def effort(one: Obstacle) -> tuple[int, bool]:
        return ease[one.cause], one.cause is ConflictCause.UNRESERVED and not may_clear(one.gpu)

    chosen = sorted(obstacles, key=effort)[:lacking]
    if len(chosen) < lacking:
        chosen.append(Obstacle(missing_gpu_reading(""), ConflictCause.ABSENT))
    return JobConflict(tuple(chosen), clean)


def _obstacles_and_clean(
    observation: Observation,
    view: NodeView,
    owner: JobOwner,
    among: Collection[str] | None = None,
    claim: Claim | None = None,
) -> tuple[list[Obstacle], tuple[str, ...]]:
    obstacles, clean = [], []
    for gpu in observation.scan.gpus:
        if among is not None and gpu.uuid not in among:
            continue
        cause = _cause(gpu, observation, view, owner, claim)
        if cause is not None:
            obstacles.append(Obstacle(gpu, cause))
        else:
            clean.append(gpu)
    clean.sort(key=lambda gpu: (view.released_at.get(gpu.uuid, 0.0), gpu.index))
    return obstacles, tuple(gpu.uuid for gpu in clean)


def _cause(
    gpu: GpuReading,
    observation: Observation,
    view: NodeView,
    owner: JobOwner,
    claim: Claim | None,
) -> ConflictCause | None:
    held = view.reservations.get(gpu.uuid)
    others = [one for one in held.holders if not owner.covers(one.claim.owner)] if held else []
    if not all(claim and shares_with(claim, one) for one in others):
        return ConflictCause.RESERVED
    if gpu.uuid in view.quarantines or gpu.uuid in observation.unhealthy:
        return ConflictCause.QUARANTINED
    if not gpu.uuid or gpu.uuid in observation.unknown:
        return ConflictCause.UNREADABLE
    in_use = gpu.uuid in observation.in_use - observation.covered.keys()
    return ConflictCause.UNRESERVED if in_use else None


def swap_gpus(wanted: Sequence[str], conflict: JobConflict, count: int) -> tuple[str, ...] | None:
    """Return `count` clean GPUs for a job, None where there are not enough.

    Wanted GPUs that are clean come first, then the least recently released ones.
    """
    unchanged = [uuid for uuid in wanted if uuid in conflict.clean]
    others = [uuid for uuid in conflict.clean if uuid not in unchanged]
    chosen = (*unchanged, *others)[:count]
    return chosen if len(chosen) == count else None


def processes_to_end(gpu: GpuReading, usage: UsagePolicy) -> tuple[GpuProcess, ...]:
    """Return the processes whose end would free the GPU: all that count as use."""
    return tuple(one for one in gpu.processes if not usage.ignores(one))


def can_be_freed_by_kill(
    obstacles: Iterable[Obstacle], exemptions: Mapping[int, str], usage: UsagePolicy
) -> bool:
    """Tell whether ending processes would free all these GPUs.

    `exemptions` says by pid why a process must not be ended, "" where it may be.
    """
    for one in obstacles:
        targets = processes_to_end(one.gpu, usage)
        if one.cause is not ConflictCause.UNRESERVED or not targets:
            return False
        if any(exemptions.get(process.pid, "it is not known") for process in targets):
            return False
    return True


def in_use_since_text(
    conflict: JobConflict, started_at: Mapping[int, float], written: Callable[[float], str]
) -> str:
    """Return since when the first GPU in unreserved use is used, `` (since 13:31)``, if known."""
    for one in conflict.obstacles:
        if one.cause is ConflictCause.UNRESERVED:
            times = [started_at[p.pid] for p in one.gpu.processes if p.pid in started_at]
            return f" (since {written(min(times))})" if times else ""
    return ""


def reservable_gpus(wanted: Collection[str], conflict: JobConflict) -> tuple[str, ...]:
    """Return the wanted GPUs that the ledger can grant to a job that starts all the same."""
    unusable = {
        one.gpu.uuid for one in conflict.obstacles if one.cause is not ConflictCause.UNRESERVED
    }
    return tuple(uuid for uuid in wanted if uuid not in unusable)
