"""What the core needs of a scheduler: a job's context, and what can be done to a job.

A scheduler is a package under ``canhazgpu.schedulers``; nothing outside it knows its variables,
files or commands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from canhazgpu.ledger.values import Claim, JobOwner


@dataclass(frozen=True, slots=True)
class JobContext:
    """One attempt of a job on one node, as the scheduler's hook tells it.

    `positions` are the scheduler's own numbers for the job's GPUs on this node, whatever they
    count; empty for a job without GPUs. `ends_at` is in seconds since the epoch, None when unknown.
    """

    owner: JobOwner
    node: str
    user: str
    uid: int
    positions: tuple[int, ...]
    ends_at: float | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class AssignedGpu:
    """A GPU granted to a job, under the number by which the scheduler knows it.

    `device_file` is the device the job may open for it, empty where that is not known.
    """

    position: int
    uuid: str
    index: int
    device_file: str = ""


class JobActions(Protocol):
    """What a hook may do to a job, or say of it; none of these ever raises."""

    def send_back(self, job: JobContext, reason: str) -> str:
        """Keep the job from running here now, and record why where its user looks.

        A job that can run again is requeued; one that cannot (interactive) is told and ended.
        Returns what happened, for the log.
        """
        ...

    def log(self, message: str) -> None:
        """Tell the administrator: one line in the scheduler's log on this node, and in syslog."""
        ...


def claim_of(job: JobContext, type_: str, boot_id: str | None) -> Claim:
    """Return what the ledger records with each of the job's GPUs."""
    return Claim(
        owner=job.owner.token,
        type=type_,
        user=job.user,
        uid=job.uid,
        job_id=job.owner.job_id,
        job_name=job.name,
        ends_at=job.ends_at,
        boot_id=boot_id,
    )
