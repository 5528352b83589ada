"""Add names and ends of jobs to reservations, asked of the scheduler when they are shown.

The ledger lacks them where the scheduler's hook did not know them at the job's start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from canhazgpu.ledger.co_holders import combine
from canhazgpu.ledger.values import Claim, NodeView, Reservation


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job as the scheduler knows it: user, name and end (seconds since the epoch)."""

    user: str
    name: str
    ends_at: float | None


@dataclass(frozen=True, slots=True)
class JobNow:
    """The present state of a job, in the scheduler's words.

    `address` is the scheduler's name for it, such as ``4711_3``. `starts_at` is when it started or
    may start at the earliest, `ends_at` when it ended or must end; both in seconds since the
    epoch, None if not known. `is_held` says of a waiting job that somebody has to release it.
    """

    job_id: str
    address: str
    user: str
    state: str
    reason: str
    nodes: str
    starts_at: float | None = None
    ends_at: float | None = None
    is_held: bool = False


class JobLookup(Protocol):
    """Looks up the jobs of one scheduler."""

    def jobs(self, job_ids: Iterable[str]) -> Mapping[str, JobInfo]:
        """Return the known jobs by id, within a short time; none after any failure."""
        ...

    def job_now(self, job_id: str) -> JobNow | None:
        """Return the job's present state, None if the scheduler does not know the job.

        Raises `SchedulerError` if it does not answer.
        """
        ...

    def resolve_job_id(self, address: str) -> str | None:
        """Return the id of a job that is named otherwise, for example as a task of an array.

        None where the scheduler does not know the job or does not answer.
        """
        ...


def incomplete_jobs(views: Iterable[NodeView], scheduler: str) -> tuple[str, ...]:
    """Return the ids of the scheduler's jobs whose name or end the ledger does not know."""
    found = {
        claim.job_id: None
        for view in views
        for claim in (reservation.claim for reservation in view.all_reservations())
        if claim.type == scheduler and claim.job_id and _lacks_name_or_end(claim)
    }
    return tuple(found)


def with_job_info(view: NodeView, facts: Mapping[str, JobInfo], scheduler: str) -> NodeView:
    """Return the view with names and ends that the ledger lacks."""

    def complete(one: Reservation) -> Reservation:
        return replace(one, claim=_with_info(one.claim, facts, scheduler))

    reservations = {
        uuid: combine(map(complete, held.holders)) or held
        for uuid, held in view.reservations.items()
    }
    return replace(view, reservations=reservations)


def _lacks_name_or_end(claim: Claim) -> bool:
    return claim.job_name is None or claim.ends_at is None


def _with_info(claim: Claim, facts: Mapping[str, JobInfo], scheduler: str) -> Claim:
    fact = facts.get(claim.job_id or "")
    # A job of another cluster may have the same id, but hardly the same user too.
    if fact is None or claim.type != scheduler or fact.user != claim.user:
        return claim
    return replace(
        claim,
        job_name=fact.name if claim.job_name is None else claim.job_name,
        ends_at=fact.ends_at if claim.ends_at is None else claim.ends_at,
    )
