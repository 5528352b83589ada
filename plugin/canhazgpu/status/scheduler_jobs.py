"""What a scheduler can add to its reservations when they are shown: a job's name and its end.

A scheduler's hooks may run before either is known to them; the ledger then lacks it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from canhazgpu.ledger.values import Claim, NodeView


@dataclass(frozen=True, slots=True)
class JobInfo:
    """What the scheduler says of a job: whose, its name, and its end (seconds since the epoch)."""

    user: str
    name: str
    ends_at: float | None


class JobLookup(Protocol):
    """Asks one scheduler for its jobs."""

    def jobs(self, job_ids: Iterable[str]) -> Mapping[str, JobInfo]:
        """Return the facts of the jobs it knows, by id; quickly, and none for any failure."""
        ...

    def resolve_job_id(self, address: str) -> str | None:
        """Return the id of a job that its user names otherwise, as a task of an array.

        None where the scheduler does not know it, or does not answer.
        """
        ...


def incomplete_jobs(views: Iterable[NodeView], scheduler: str) -> tuple[str, ...]:
    """Return the ids of the scheduler's jobs whose name or end the ledger does not know."""
    found = {
        claim.job_id: None
        for view in views
        for claim in (reservation.claim for reservation in view.reservations.values())
        if claim.type == scheduler and claim.job_id and _lacks_name_or_end(claim)
    }
    return tuple(found)


def with_job_info(view: NodeView, facts: Mapping[str, JobInfo], scheduler: str) -> NodeView:
    """Return the view with what the scheduler knows of its jobs; the ledger's own word stays."""
    reservations = {
        uuid: replace(reservation, claim=_with_info(reservation.claim, facts, scheduler))
        for uuid, reservation in view.reservations.items()
    }
    return replace(view, reservations=reservations)


def _lacks_name_or_end(claim: Claim) -> bool:
    return claim.job_name is None or claim.ends_at is None


def _with_info(claim: Claim, facts: Mapping[str, JobInfo], scheduler: str) -> Claim:
    fact = facts.get(claim.job_id or "")
    # Another cluster's job may carry the same number; its user is then hardly the same too.
    if fact is None or claim.type != scheduler or fact.user != claim.user:
        return claim
    return replace(
        claim,
        job_name=fact.name if claim.job_name is None else claim.job_name,
        ends_at=fact.ends_at if claim.ends_at is None else claim.ends_at,
    )
