"""The processes that an ended job left on its GPUs, and which GPUs to quarantine; pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from canhazgpu.conflict.kill_exemptions import (
    ProcessRights,
    exemption_reason,
    foreign_process_reason,
)
from canhazgpu.conflict.obstacles import processes_to_end
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuProcess, GpuReading
from canhazgpu.gpu.usage import UsagePolicy, processes_text
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import NodeView

CLEAN_UP_TIME_SHARE = 0.6
"""Share of an epilog's time for the clean-up; the rest is for the release."""
FINAL_SCAN_S = 3.0
"""Time of the clean-up that is reserved for the last scan and the quarantine."""


@dataclass(frozen=True, slots=True)
class EndedJob:
    """The ended job, for comparison with processes.

    `name` has the form of `GpuProcess.job`, ``slurm:12``. `began_ticks` is when the job began on
    this node, in clock ticks since boot; None without a record.
    """

    name: str
    user: str
    uid: int
    began_ticks: int | None


@dataclass(frozen=True, slots=True)
class Leftover:
    """A process on a GPU that the job held.

    `of_job` says whether it is the job's own. `exemption` says why it is not ended, else it is "".
    """

    gpu: GpuReading
    process: GpuProcess
    of_job: bool
    exemption: str


def gpus_of_ended_job(
    owner: JobOwner, recorded: Collection[str], view: NodeView
) -> tuple[str, ...]:
    """Return the GPUs (UUIDs) that the ended job held and that nobody else holds since.

    The ledger knows them; where Redis lost its data, the node's record of the job does.
    """
    by_ledger = [one.gpu for one in view.all_reservations() if owner.covers(one.claim.owner)]
    by_record = [uuid for uuid in recorded if uuid not in view.reservations]
    return tuple(dict.fromkeys((*by_ledger, *by_record)))


def gpus_held_by_others(owner: JobOwner, view: NodeView) -> frozenset[str]:
    """Return the GPUs (UUIDs) that others than the job hold, beside it or alone."""
    return frozenset(
        one.gpu for one in view.all_reservations() if not owner.covers(one.claim.owner)
    )


def find_leftovers(
    job: EndedJob,
    gpus: Collection[GpuReading],
    started: Mapping[int, int],
    rights: Callable[[], ProcessRights],
    usage: UsagePolicy,
) -> tuple[Leftover, ...]:
    """Return every process on these GPUs that counts as use, judged.

    `started` has the starts of processes in clock ticks, by pid. `rights` is called only where a
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
            exemption = why or exemption_reason(process, job.name, rights())
            found.append(Leftover(gpu, process, not why, exemption))
    return tuple(found)


def gpus_to_quarantine(
    held: Collection[str],
    observation: Observation,
    leftovers: Collection[Leftover],
    *,
    ends: bool,
) -> tuple[GpuReading, ...]:
    """Return the GPUs to quarantine: in use without a process, or by one that could not be ended.

    A GPU with an exempted process is not quarantined: it shows as in use WITHOUT RESERVATION.
    Without `ends` leftovers are only reported, and count as exempted.
    """
    exempted = {one.gpu.uuid for one in leftovers if one.exemption or not ends}
    return _in_use_not_exempted(held, observation, exempted)


def settling_gpus(
    held: Collection[str],
    observation: Observation,
    leftovers: Collection[Leftover],
    *,
    ends: bool,
) -> tuple[GpuReading, ...]:
    """Return the GPUs in use that may come free soon: those without an exempted process.

    An exempted process of unknown owner does not count: it may have just ended.
    """
    exempted = {
        one.gpu.uuid
        for one in leftovers
        if (one.exemption or not ends) and one.process.uid is not None
    }
    return _in_use_not_exempted(held, observation, exempted)


def _in_use_not_exempted(
    held: Collection[str], observation: Observation, exempted: Collection[str]
) -> tuple[GpuReading, ...]:
    return tuple(
        gpu
        for gpu in observation.scan.gpus
        if gpu.uuid in held and gpu.uuid in observation.in_use and gpu.uuid not in exempted
    )


def quarantine_reason(gpu: GpuReading, job_id: str, user: str) -> str:
    """Return the reason: ``job 12 of ann left 8045MB used by PID 7 (python3)``."""
    used = "memory" if gpu.held_memory_mb is None else f"{gpu.held_memory_mb}MB"
    by = processes_text(gpu.processes) or "no process shown"
    return f"job {job_id} of {user} left {used} used by {by}"
