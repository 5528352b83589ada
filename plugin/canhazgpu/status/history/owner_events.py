"""The events of one job, run or manual reservation, and what follows from them; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from canhazgpu.ledger.journal_entries import (
    EPILOG,
    GRANT,
    HEALTH,
    PROLOG,
    QUARANTINE,
    RELEASE,
    UNQUARANTINE,
    JournalEntry,
)
from canhazgpu.ledger.values import Event

JOB = "job"
BY_EPILOG = "epilog"
"""The author of a quarantine that an epilog set; its reason begins with the job."""
ATTEMPT_FACT = "attempt"
"""A fact of an epilog that is not known to be its owner's: ``earlier`` or ``unknown``."""
MAX_DIGITS = 10
"""Digits of an attempt's number; in more there is none."""
SENT_BACK = ("requeued", "held")
"""Words in the reason of a hook that sent its job back into the queue."""


def events_of_owner(events: Sequence[Event], job_id: str | None, owner: str = "") -> list[Event]:
    """Return the events about the job, or without a job about the owner, in the given order.

    A quarantine by the job's epilog is one of them, and so is its end.
    """
    found: list[Event] = []
    quarantined: set[str] = set()
    for event in events:
        if _is_about(event, job_id, owner):
            found.append(event)
        elif job_id and _is_left_by(event, job_id):
            quarantined.add(event.gpu)
            found.append(event)
        elif event.kind == UNQUARANTINE and event.gpu in quarantined:
            quarantined.remove(event.gpu)
            found.append(event)
    return found


def _is_about(event: Event, job_id: str | None, owner: str) -> bool:
    claim = event.claim
    if claim is not None and (claim.job_id == job_id if job_id else claim.owner == owner):
        return True
    return job_id is not None and bool(checked_jobs(event, job_id))


def _is_left_by(event: Event, job_id: str) -> bool:
    by_epilog = event.kind == QUARANTINE and event.by == BY_EPILOG
    return by_epilog and event.reason.startswith(f"{JOB} {job_id} of ")


def checked_jobs(event: Event, job_id: str | None) -> list[Mapping[str, Any]]:
    """Return what a health check says of the job; None: of every job."""
    jobs = dicts_in(event.facts.get("jobs")) if event.kind == HEALTH else []
    return [one for one in jobs if job_id is None or one.get("job_id") == job_id]


def events_from_entries(entries: Sequence[JournalEntry]) -> list[Event]:
    """Return the events that Redis will have of a node's pending journal entries.

    They have no id yet. A release of all of an owner's GPUs names those of its earlier grant.
    """
    granted: dict[str, JournalEntry] = {}
    events = []
    for entry in entries:
        if entry.kind == GRANT:
            granted[entry.owner] = entry
        grant = granted.get(entry.owner) if entry.kind == RELEASE else None
        event = Event(
            "",
            entry.at,
            entry.kind,
            claim=grant.claim if grant else entry.claim,
            granted_at=grant.at if grant else None,
            reason=entry.reason,
            by=entry.by,
            facts=entry.facts,
        )
        gpus = entry.gpus or (grant.gpus if grant else ())
        events += [replace(event, gpu=gpu) for gpu in gpus or ("",)]
    return events


def requeued_by_others(events: Iterable[Event]) -> frozenset[str]:
    """Return the attempts (owners) of a job that were requeued, but not by canhazgpu.

    `events` are those of all nodes. An attempt that is followed by the next was requeued.
    """
    attempts: dict[tuple[str, int], str] = {}
    by_canhazgpu = set()
    for event in events:
        kind, job, attempt = parts_of_owner(event)
        if kind != JOB or event.claim is None or not (attempt.isascii() and attempt.isdecimal()):
            continue
        if ATTEMPT_FACT not in event.facts and len(attempt) < MAX_DIGITS:
            attempts[job, int(attempt)] = event.claim.owner
        if event.kind == PROLOG and any(word in event.reason for word in SENT_BACK):
            by_canhazgpu.add(event.claim.owner)
    return frozenset(
        owner
        for (job, attempt), owner in attempts.items()
        if (job, attempt + 1) in attempts and owner not in by_canhazgpu
    )


def prolog_gaps(events: Sequence[Event]) -> dict[str, str]:
    """Return what is to be said of attempts (owners) whose epilog is told, and no prolog.

    Not of an attempt that began before the first of these events, or is not known.
    """
    told: dict[str, set[str]] = {}
    for event in events:
        if parts_of_owner(event)[0] == JOB and event.claim and ATTEMPT_FACT not in event.facts:
            told.setdefault(event.claim.owner, set()).add(event.kind)
    gaps = {}
    for owner, kinds in told.items():
        if EPILOG not in kinds or PROLOG in kinds:
            continue
        if GRANT in kinds:
            gaps[owner] = "its prolog reserved and did not come to its end"
        elif RELEASE not in kinds:
            gaps[owner] = (
                "no prolog of it is on record here: Slurm started it without one, or it was killed"
            )
    return gaps


def parts_of_owner(event: Event) -> tuple[str, str, str]:
    """Return kind, job (``CLUSTER:ID``) and attempt of the owner ``job:CLUSTER:ID:ATTEMPT``."""
    kind, _, rest = (event.claim.owner if event.claim else "").partition(":")
    job, _, attempt = rest.rpartition(":")
    return kind, job, attempt


def cluster_of(event: Event) -> str:
    """Return the cluster of the job that owns the event, empty if no job does."""
    kind, job, _ = parts_of_owner(event)
    return job.rpartition(":")[0] if kind == JOB else ""


def dicts_in(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects in a fact that should be a list of objects."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def texts_in(value: Any) -> list[str]:
    """Return the texts in a fact that should be a list of texts."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
