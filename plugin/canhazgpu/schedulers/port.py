"""The port for schedulers: a job's context, and the actions on a job.

Each scheduler is a package under ``canhazgpu.schedulers``. Nothing outside that package knows the
scheduler's variables, files or commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Protocol

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.values import Claim, Share, bounded_name


@dataclass(frozen=True, slots=True)
class JobContext:
    """One attempt of a job on one node, parsed from the environment of the scheduler's hook.

    `positions` are the scheduler's own numbers of the job's GPUs on this node, in whatever order
    it counts; empty for a job without GPUs. `ends_at` is in seconds since the epoch, None if
    unknown. `partition` is the scheduler's queue, empty if it has none. `requeues` is how often
    canhazgpu has requeued the job. `run_id` is the scheduler's own name of this run of the
    job, which no other run has; empty if the scheduler gives none. `share` is the part of its GPUs
    that the job has, None where it has them alone or the environment does not tell. The job
    `follows` on all its nodes but its first, as far as the environment tells.
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
    run_id: str = ""
    share: Share | None = None
    follows: bool = False


class ActionOutcome(Enum):
    """The outcome of a request to the scheduler."""

    DONE = "done"
    REFUSED = "refused"
    """The scheduler does not do that to a job of this kind."""
    FAILED = "failed"
    """The scheduler did not answer."""


@dataclass(frozen=True, slots=True)
class ActionResult:
    """The outcome of a request, and what happened to the job, as text for the log."""

    outcome: ActionOutcome
    text: str


class JobActions(Protocol):
    """What a hook can do to a job. No method raises.

    `note` is one sentence for the job's user and the administrator.
    """

    def requeue(self, job: JobContext, note: str, *, hold: bool = False) -> ActionResult:
        """Put the job back into the queue; with `hold` it waits there until it is released.

        Refused for a job that cannot run again, such as an interactive job.
        """
        ...

    def cancel(self, job: JobContext, note: str) -> ActionResult:
        """Notify the job's user, and cancel the job."""
        ...

    def notify_user(self, job: JobContext, note: str) -> None:
        """Notify the job's user."""
        ...

    def drain(self, node: str, note: str) -> ActionResult:
        """Drain the node. A node that is drained or down already is left as it is."""
        ...

    def running_job_uids(self, node: str) -> Mapping[str, int] | None:
        """Return the users (uids) of the jobs that run on the node, by job id.

        None if the scheduler does not answer.
        """
        ...

    def log(self, message: str) -> None:
        """Write one line to the scheduler's log on this node, and to syslog."""
        ...


def claim_of(job: JobContext, type_: str, boot_id: str | None) -> Claim:
    """Return the claim that the ledger records with each of the job's GPUs."""
    return Claim(
        owner=job.owner.token,
        type=type_,
        user=job.user,
        uid=job.uid,
        job_id=job.owner.job_id,
        job_name=None if job.name is None else bounded_name(job.name),
        ends_at=job.ends_at,
        boot_id=boot_id,
        share=job.share,
        follows=job.follows,
    )
