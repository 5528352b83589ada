"""What the core needs of a scheduler: a job's context, and what can be done to a job.

A scheduler is a package under ``canhazgpu.schedulers``; nothing outside it knows its variables,
files or commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from canhazgpu.ledger.values import Claim, JobOwner


@dataclass(frozen=True, slots=True)
class JobContext:
    """One attempt of a job on one node, as the scheduler's hook tells it.

    `positions` are the scheduler's own numbers for the job's GPUs on this node, whatever they
    count; empty for a job without GPUs. `ends_at` is in seconds since the epoch, None when unknown.
    `partition` is the scheduler's queue, empty where it names none. `requeues` counts how often
    canhazgpu sent the job back before.
    """

    owner: JobOwner
    node: str
    user: str
    uid: int
    positions: tuple[int, ...]
    ends_at: float | None = None
    name: str | None = None
    partition: str = ""
    requeues: int = 0


class ActionOutcome(Enum):
    """What became of an order to the scheduler."""

    DONE = "done"
    REFUSED = "refused"
    """The scheduler does not do that to such a job."""
    FAILED = "failed"
    """The scheduler could not be asked."""


@dataclass(frozen=True, slots=True)
class ActionResult:
    """The outcome of an order, and what happened to the job, for the log."""

    outcome: ActionOutcome
    text: str


class JobActions(Protocol):
    """What a hook may do to a job, or say of it; none of these ever raises.

    `note` is one sentence for the job's user and the administrator.
    """

    def requeue(self, job: JobContext, note: str, *, hold: bool = False) -> ActionResult:
        """Let the job wait in the queue again; with `hold` until somebody releases it.

        Refused for a job that cannot run again, such as an interactive one.
        """
        ...

    def cancel(self, job: JobContext, note: str) -> ActionResult:
        """Tell the job's user, and end the job."""
        ...

    def notify_user(self, job: JobContext, note: str) -> None:
        """Tell the job's user."""
        ...

    def drain(self, node: str, note: str) -> ActionResult:
        """Take the node out of service; one that is out of service already is left as it is."""
        ...

    def running_job_uids(self, node: str) -> Mapping[str, int] | None:
        """Return the users (uids) of the jobs that run on the node, by job id.

        None where that cannot be told.
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
