"""Which processes may be ended, and why the others may not; pure.

A process is ended only where it certainly has no right to the GPU.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from canhazgpu.allocation.coverage import ANY_PID_NAMESPACE, PidNamespace, covers
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.process_job import is_of_another_node, is_unidentified, job_text
from canhazgpu.gpu.scan import GpuProcess
from canhazgpu.ledger.values import Claim

MIN_USER_UID = 1000
"""Smaller uids are system users, which are always protected."""


@dataclass(frozen=True, slots=True)
class ProcessRights:
    """The reservations, jobs and users whose processes must not be ended on this node.

    `claims` are those of all reservations of the node. `jobs` has the uids of the scheduler's other
    jobs on the node by job id, also of jobs without GPUs; None where it did not answer.
    `protected` are names or uids of users.
    """

    claims: tuple[Claim, ...] = ()
    jobs: Mapping[str, int] | None = None
    protected: Collection[str] = ()
    pid_namespace: PidNamespace = ANY_PID_NAMESPACE


def protected_user_reason(process: GpuProcess, protected: Collection[str]) -> str:
    """Return why only its user or an administrator may end it; empty where others may."""
    if process.uid is None:
        return "its owner is not known"
    if process.uid < MIN_USER_UID or {process.user, str(process.uid)} & set(protected):
        return f"{process.user or process.uid} is a protected user"
    return ""


def exemption_reason(process: GpuProcess, own_job: str, rights: ProcessRights) -> str:
    """Return why the process must not be ended for `own_job`; empty where it may be.

    `own_job` has the form of `GpuProcess.job`, ``slurm:12``.
    """
    if protected := protected_user_reason(process, rights.protected):
        return protected
    if process.job is not None and is_unidentified(process.job):
        return f"it is in an {job_text(process.job)}"
    if process.job is not None and is_of_another_node(process.job):
        return f"it belongs to {job_text(process.job)}"
    for claim in rights.claims:
        if covers(claim, process, rights.pid_namespace):
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
    """Return why the process is not, or not certainly, the job's; empty where it is.

    `began` is when the job began on this node, `started` when the process started; both are clock
    ticks since the node's boot, None where not known. A process outside of any job's cgroup is the
    job's if it has the job's user and started after the job.
    """
    if process.job is not None:
        return "" if process.job == job else f"it belongs to {job_text(process.job)}"
    if process.uid is None:
        return "its owner is not known"
    if process.uid != uid:
        return f"it is {process.user or process.uid}'s"
    if began is None or started is None:
        return "it cannot be told when it started"
    return "it ran before the job" if started < began else ""
