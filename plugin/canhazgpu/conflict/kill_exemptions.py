"""Which process may be ended, and why the others may not; pure.

Whoever cannot be shown to have no right to a GPU is left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from canhazgpu.gpu.scan import GpuProcess
from canhazgpu.ledger.values import Claim
from canhazgpu.status.coverage import ANY_PID_NAMESPACE, PidNamespace, covers

MIN_USER_UID = 1000
"""Users below it are the system's, and always protected."""


@dataclass(frozen=True, slots=True)
class ProcessRights:
    """Who has a right to processes on this node, as far as is known.

    `claims` are those of the node's reservations, of any GPU. `jobs` are the users (uids) of the
    scheduler's other jobs here by job id, with GPUs or without; None where it did not answer.
    `protected` names users.
    """

    claims: tuple[Claim, ...] = ()
    jobs: Mapping[str, int] | None = None
    protected: Collection[str] = ()
    space: PidNamespace = ANY_PID_NAMESPACE


def protected_user_reason(process: GpuProcess, protected: Collection[str]) -> str:
    """Return why nobody but its user or the administrator may end it; empty where one may."""
    if process.uid is None:
        return "its owner is not known"
    if process.uid < MIN_USER_UID or {process.user, str(process.uid)} & set(protected):
        return f"{process.user or process.uid} is a protected user"
    return ""


def exemption_reason(process: GpuProcess, own_job: str, rights: ProcessRights) -> str:
    """Return why the process is not to be ended for the good of `own_job`; empty where it may be.

    `own_job` is the job as processes name it, ``slurm:12``.
    """
    if protected := protected_user_reason(process, rights.protected):
        return protected
    for claim in rights.claims:
        if covers(claim, process, rights.space):
            return f"the reservation of {claim.user} covers it"
    return "" if process.job == own_job else _other_job_reason(process, rights.jobs)


def _other_job_reason(process: GpuProcess, jobs: Mapping[str, int] | None) -> str:
    if jobs is None:
        return "the scheduler does not say whose jobs are here"
    if process.job is not None:
        job_id = process.job.partition(":")[2]
        return f"it belongs to job {job_id}" if job_id in jobs else ""
    if process.uid in jobs.values():
        return f"another job of {process.user or process.uid} is here"
    return ""


def foreign_process_reason(
    process: GpuProcess, job: str, uid: int, *, began: int | None, started: int | None
) -> str:
    """Return why the process cannot be held to be the job's own; empty where it is the job's.

    `began` is when the job began on this node, `started` when the process did, both in clock
    ticks since the node's boot and None where that is not known. Outside of the job's cgroup only
    its user and the time speak for it: what ran before the job is not the job's.
    """
    if process.job is not None:
        return "" if process.job == job else f"it belongs to {process.job}"
    if process.uid is None:
        return "its owner is not known"
    if process.uid != uid:
        return f"it is {process.user or process.uid}'s"
    if began is None or started is None:
        return "it cannot be told when it started"
    return "it ran before the job" if started < began else ""
