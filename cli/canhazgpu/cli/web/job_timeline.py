"""The timeline of a job as `explain` tells it, and a picture of what it held; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from canhazgpu.status.event_format import bounded_line
from canhazgpu.status.history.owner_events import events_from_entries, requeued_by_others
from canhazgpu.status.history.owner_history import history_lines

if TYPE_CHECKING:
    from canhazgpu.ledger.values import Event
    from canhazgpu.service.history import ExplainAnswer

TIME_WIDTH = len("2025-01-31 12:00:00")
MAX_SPANS = 64
"""GPUs in the picture; the list has all."""


@dataclass(slots=True)
class Entry:
    """One thing that happened: its local time, what it was, and what belongs to it."""

    at: str
    text: str
    details: list[str]


@dataclass(frozen=True, slots=True)
class NodeTimeline:
    """What happened on one node, in order."""

    node: str
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class HeldSpan:
    """A GPU was held from `start` to `end`, parts of the whole time (0 to 1); `open` if still."""

    node: str
    gpu: str
    start: float
    end: float
    open: bool


def timelines_of(answer: ExplainAnswer) -> list[NodeTimeline]:
    """Return the events of each node, told as `explain` tells them."""
    here = answer.on_this_node
    events: dict[str, list[Event]] = {}
    for one in answer.events:
        events.setdefault(one.node, []).append(one.event)
    if here.pending:
        events.setdefault(here.node, []).extend(events_from_entries(here.pending))
    requeued = requeued_by_others(event for some in events.values() for event in some)
    return [
        NodeTimeline(
            node,
            list(_entries(history_lines(node, events[node], answer.job_id or None, requeued))),
        )
        for node in sorted(events)
    ]


def _entries(lines: Iterator[str]) -> Iterator[Entry]:
    """Yield the entries; the first line is the node's, and details are further to the right."""
    entry: Entry | None = None
    next(lines, None)
    for line in map(bounded_line, lines):
        if line.startswith("   ") and entry is not None:
            entry.details.append(line.strip())
            continue
        if entry is not None:
            yield entry
        text = line.strip()
        entry = Entry(text[:TIME_WIDTH], text[TIME_WIDTH:].strip(), [])
    if entry is not None:
        yield entry


def spans_of(answer: ExplainAnswer) -> list[HeldSpan]:
    """Return when each GPU was held, from the first grant to the last end or now."""
    found: list[tuple[str, str, float, float | None]] = []
    held = {(one.node, one.reservation.gpu): one.reservation for one in answer.holdings}
    for one in answer.events:
        event = one.event
        if event.kind == "release" and event.granted_at:
            found.append((one.node, event.gpu, event.granted_at, event.at))
    found += [(node, gpu, one.granted_at, None) for (node, gpu), one in held.items()]
    found = [one for one in found if one[2] > 0][:MAX_SPANS]
    if not found:
        return []
    first = min(one[2] for one in found)
    last = max(answer.read_at if one[3] is None else one[3] for one in found)
    whole = max(last - first, 1.0)
    return [
        HeldSpan(
            node,
            gpu,
            (start - first) / whole,
            min(((last if end is None else end) - first) / whole, 1.0),
            end is None,
        )
        for node, gpu, start, end in sorted(found, key=lambda one: (one[0], one[2], one[1]))
    ]
