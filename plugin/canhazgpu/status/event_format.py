"""The events of a node's history as lines for people, and as JSON; pure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from canhazgpu.allocation.holder_text import holder_name, share_text
from canhazgpu.durations import short_duration_text
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.use_text import use_texts
from canhazgpu.ledger.journal_entries import NOTE_KINDS, USE
from canhazgpu.ledger.owner import job_cluster
from canhazgpu.ledger.values import Event

UNKNOWN_TIME = "at an unknown time"
MAX_LINE = 4000
"""Characters of a line; a field that another program wrote may hold megabytes."""


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """An event of a node's history, with the node."""

    node: str
    event: Event


def by_time(events: Sequence[NodeEvent]) -> list[NodeEvent]:
    """Return the events of several nodes, sorted by time."""
    return sorted(events, key=lambda one: (one.event.at, one.node, one.event.id))


def event_line(one: NodeEvent, *, names_cluster: bool = False) -> str:
    """Return the event on one line: time, node, kind, GPU, owner, outcome, reason.

    `names_cluster` is for histories of several clusters, whose jobs may have the same numbers.
    """
    event = one.event
    words = [
        local_time_text(event.at),
        one.node,
        event.kind,
        event.gpu,
        _owner_text(event, names_cluster=names_cluster),
        outcome_text(event),
    ]
    if event.by:
        words.append(f"by {event.by}")
    line = " ".join(word for word in words if word)
    return bounded_line(f"{line}: {event.reason}" if event.reason else line)


def bounded_line(line: str) -> str:
    """Return the line, of one that is far too long the beginning; cut where a word ends."""
    if len(line) <= MAX_LINE:
        return line
    return f"{line[:MAX_LINE].rpartition(' ')[0] or line[:MAX_LINE]} ..."


def local_time_text(at: float) -> str:
    """Return the time in this machine's time zone; a number that is no date is said to be none."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return UNKNOWN_TIME


def clusters_in(events: Sequence[NodeEvent]) -> set[str]:
    """Return the clusters of the jobs in the events."""
    found = {job_cluster(one.event.claim.owner) for one in events if one.event.claim}
    return found - {""}


def _owner_text(event: Event, *, names_cluster: bool) -> str:
    if event.claim is None:
        return ""
    cluster = job_cluster(event.claim.owner) if names_cluster else ""
    of_cluster = f" of cluster {cluster}" if cluster else ""
    share = f", {share_text(event.claim.share)}" if event.claim.share else ""
    return f"{holder_name(event.claim)}{of_cluster}{share}"


def outcome_text(event: Event) -> str:
    """Return the outcome of a hook, how long a released GPU was held, or what was made of GPUs."""
    if event.kind == USE:
        return ", ".join(use_texts(event.facts.get("use")))
    outcome = event.facts.get("outcome")
    if event.kind in NOTE_KINDS and isinstance(outcome, str):
        return outcome
    if event.kind == "release" and event.granted_at is not None:
        return f"after {short_duration_text(max(event.at - event.granted_at, 0))}"
    return ""


def event_to_dict(one: NodeEvent) -> dict[str, Any]:
    """Return the event for JSON; unknown values are null."""
    event, claim = one.event, one.event.claim
    return {
        "node": one.node,
        "id": event.id,
        "at": event.at,
        "kind": event.kind,
        "gpu": event.gpu or None,
        "owner": claim.owner if claim else None,
        "type": claim.type if claim else None,
        "user": claim.user if claim else None,
        "job_id": claim.job_id if claim else None,
        "cluster": (job_cluster(claim.owner) or None) if claim else None,
        "share": asdict(claim.share) if claim and claim.share else None,
        "granted_at": event.granted_at,
        "reason": event.reason or None,
        "by": event.by or None,
        "idle_s": event.idle_s,
        "facts": dict(event.facts),
    }
