"""What a job that is over left on the GPUs it held, and what becomes of each; pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from canhazgpu.conflict.kill_exemptions import (
    ProcessRights,
    exemption_reason,
    foreign_process_reason,
)
from canhazgpu.conflict.obstacles import processes_to_end
from canhazgpu.gpu.scan import GpuProcess, GpuReading
from canhazgpu.gpu.usage import UsagePolicy, processes_text
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import JobOwner, NodeView

CLEAN_UP_TIME_SHARE = 0.6
"""What of an epilog's time the clean-up may take; the rest is the release's."""
FINAL_SCAN_S = 3.0
"""What of the clean-up's time is kept for the last look and the quarantine."""


@dataclass(frozen=True, slots=True)
class EndedJob:
    """The job as its processes show it.

    `name` is the job as they name it, ``slurm:12``; `began_ticks` is when it began on this node,
    None where no record tells.
    """

    name: str
    user: str
    uid: int
    began_ticks: int | None


@dataclass(frozen=True, slots=True)
class Leftover:
    """A process on a GPU that the job held.

    `of_job` tells whether it is the job's own, `exemption` why it is not ended, if it is not.
    """

    gpu: GpuReading
    process: GpuProcess
    of_job: bool
    exemption: str


def gpus_of_ended_job(
    owner: JobOwner, recorded: Collection[str], view: NodeView
) -> tuple[str, ...]:
    """Return the GPUs (UUIDs) that the ended job held, and nobody else has since.

    The ledger knows them, and where it lost its memory, the node's record does.
    """
    by_ledger = [uuid for uuid, held in view.reservations.items() if owner.covers(held.claim.owner)]
    by_record = [uuid for uuid in recorded if uuid not in view.reservations]
    return tuple(dict.fromkeys((*by_ledger, *by_record)))


def find_leftovers(
    job: EndedJob,
    gpus: Collection[GpuReading],
    started: Mapping[int, int],
    rights: Callable[[], ProcessRights],
    usage: UsagePolicy,
) -> tuple[Leftover, ...]:
    """Judge every process on these GPUs that counts.

    `started` are the processes' starts in ticks, by pid. `rights` is only asked for where a
    process is the job's.
    """
    found = []
    for gpu in gpus:
        for process in processes_to_end(gpu, usage):
            why = foreign_process_reason(
                process,
                job.name,
                job.uid,
                began=job.began_ticks,
                started=started.get(process.pid),
            )
            spared = why or exemption_reason(process, job.name, rights())
            found.append(Leftover(gpu, process, not why, spared))
    return tuple(found)


def gpus_to_quarantine(
    held: Collection[str],
    observation: Observation,
    leftovers: Collection[Leftover],
    *,
    ends: bool,
) -> tuple[GpuReading, ...]:
    """Return the GPUs to hold back: in use by nobody, or by what could not be ended.

    A GPU that a spared process uses is in use WITHOUT RESERVATION, for everybody to see. Where
    leftovers are only reported (not `ends`), they are such processes.
    """
    used = {one.gpu.uuid for one in leftovers if one.exemption or not ends}
    return _in_use_by_others(held, observation, used)


def settling_gpus(
    held: Collection[str],
    observation: Observation,
    leftovers: Collection[Leftover],
    *,
    ends: bool,
) -> tuple[GpuReading, ...]:
    """Return the GPUs that may come free in a moment: all in use, but by somebody's process.

    A process of unknown owner has perhaps just ended.
    """
    used = {
        one.gpu.uuid
        for one in leftovers
        if (one.exemption or not ends) and one.process.uid is not None
    }
    return _in_use_by_others(held, observation, used)


def _in_use_by_others(
    held: Collection[str], observation: Observation, used: Collection[str]
) -> tuple[GpuReading, ...]:
    return tuple(
        gpu
        for gpu in observation.scan.gpus
        if gpu.uuid in held and gpu.uuid in observation.in_use and gpu.uuid not in used
    )


def quarantine_reason(gpu: GpuReading, job_id: str, user: str) -> str:
    """Return why the GPU is held back: ``job 12 of ann left 8045MB used by PID 7 (python3)``."""
    used = "memory" if gpu.memory_used_mb is None else f"{gpu.memory_used_mb}MB"
    by = processes_text(gpu.processes) or "no process shown"
    return f"job {job_id} of {user} left {used} used by {by}"
