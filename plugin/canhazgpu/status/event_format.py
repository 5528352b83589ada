"""Pure: the events of a node's history as lines for people, and as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from canhazgpu.allocation.holder_text import holder_name, share_text
from canhazgpu.durations import short_duration_text
from canhazgpu.ledger.journal_entries import NOTE_KINDS
from canhazgpu.ledger.values import Event

JOB = "job"
UNKNOWN_TIME = "at an unknown time"


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """An event of a node's history, with the node."""

    node: str
    event: Event


def by_time(events: Sequence[NodeEvent]) -> list[NodeEvent]:
    """Return the events of several nodes, sorted by time."""
    return sorted(events, key=lambda one: (one.event.at, one.node, one.event.id))


def event_line(one: NodeEvent) -> str:
    """Return the event on one line: time, node, kind, GPU, owner, outcome, reason."""
    event = one.event
    words = [
        local_time_text(event.at),
        one.node,
        event.kind,
        event.gpu,
        _owner_text(event),
        _outcome_text(event),
    ]
    if event.by:
        words.append(f"by {event.by}")
    line = " ".join(word for word in words if word)
    return f"{line}: {event.reason}" if event.reason else line


def local_time_text(at: float) -> str:
    """Return the time in this machine's time zone; a number that is no date is said to be none."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return UNKNOWN_TIME


def _owner_text(event: Event) -> str:
    if event.claim is None:
        return ""
    share = f", {share_text(event.claim.share)}" if event.claim.share else ""
    return f"{holder_name(event.claim)}{share}"


def _outcome_text(event: Event) -> str:
    """Return the outcome of a hook, or how long a released GPU was held."""
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
        "share": asdict(claim.share) if claim and claim.share else None,
        "granted_at": event.granted_at,
        "reason": event.reason or None,
        "by": event.by or None,
        "idle_s": event.idle_s,
        "facts": dict(event.facts),
    }


def job_history_lines(node: str, events: Sequence[Event]) -> Iterator[str]:
    """Yield lines for people: the events of one job on one node, in order."""
    display_indices = _display_indices(events)
    yield f"node {node}"
    for event in events:
        yield f"  {local_time_text(event.at)}  {_event_text(event, display_indices)}"
        for gpu in _dicts_in(event.facts.get("seen")):
            if gpu.get("state") != "free" or gpu.get("who"):
                yield f"      saw {_scanned_gpu_text(gpu)}"
        if without := event.facts.get("without_store"):
            yield f"      without the store: {without}"


def _event_text(event: Event, display_indices: Mapping[str, str]) -> str:
    attempt = _attempt_text(event)
    if event.kind in NOTE_KINDS:
        took = event.facts.get("took_s")
        after = f" after {took:g} s" if isinstance(took, int | float) else ""
        named = event.facts.get("gpus")
        known = named if isinstance(named, list) else []
        gpus = [_gpu_text(gpu, display_indices) for gpu in known if isinstance(gpu, str)]
        text = f"{event.kind}{attempt}: {_outcome_text(event)}{after}"
        text += f", {', '.join(gpus)}" if gpus else ""
    else:
        gpu = _gpu_text(event.gpu, display_indices)
        share = f" ({share_text(event.claim.share)})" if event.claim and event.claim.share else ""
        text = f"{event.kind}{attempt}: {gpu}{share} {_outcome_text(event)}".rstrip()
    text += f", by {event.by}" if event.by else ""
    return f"{text}: {event.reason}" if event.reason else text


def _attempt_text(event: Event) -> str:
    owner = event.claim.owner if event.claim else ""
    kind, _, rest = owner.partition(":")
    return f" of attempt {rest.rpartition(':')[2]}" if kind == JOB else ""


def _display_indices(events: Sequence[Event]) -> dict[str, str]:
    return {
        str(gpu["gpu"]): str(gpu["place"])
        for event in events
        for gpu in _dicts_in(event.facts.get("seen"))
        if "gpu" in gpu and "place" in gpu
    }


def _gpu_text(uuid: str, display_indices: Mapping[str, str]) -> str:
    return f"GPU {display_indices[uuid]} ({uuid})" if uuid in display_indices else uuid


def _scanned_gpu_text(gpu: Mapping[str, Any]) -> str:
    details = [str(gpu.get("state", "unknown"))]
    if "used_mb" in gpu:
        details.append(f"{gpu['used_mb']}MB used")
    details += [str(gpu[name]) for name in ("who", "fault") if gpu.get(name)]
    return f"GPU {gpu.get('place', '?')} ({gpu.get('gpu', '?')}): {', '.join(details)}"


def _dicts_in(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
