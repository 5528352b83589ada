"""Who held which GPU for how long within a span of time, from a node's history; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from canhazgpu.ledger.values import Claim, Event, NodeView

RELEASE = "release"


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """A span of time, in seconds since the epoch of the store's clock."""

    since: float
    until: float

    def overlap_s(self, start: float, end: float) -> float:
        """Return how much of the time from `start` to `end` is in the span, in seconds."""
        return max(min(end, self.until) - max(start, self.since), 0.0)


@dataclass(frozen=True, slots=True)
class HeldTime:
    """One GPU held by one owner, as far as that was within the span.

    `idle_s` is its share of the time for which scans found the GPU reserved and unused.
    """

    node: str
    owner: str
    type: str
    user: str
    held_s: float
    idle_s: float = 0.0


def held_times(view: NodeView, events: Iterable[Event], span: TimeSpan) -> list[HeldTime]:
    """Return what was held on a node within the span.

    `events` are the node's from the span's beginning on, read after the view: what was released in
    between is in both, and counts once. A release tells of its whole reservation, so one that
    began before the span needs no grant.
    """
    releases = [one for one in events if one.kind == RELEASE and one.claim is not None]
    ended = {(one.gpu, one.claim.owner, one.granted_at) for one in releases if one.claim}
    found = [
        _held_time_within(view.node, one.claim, one.granted_at, one.at, span, one.idle_s)
        for one in releases
        if one.claim and (one.granted_at is None or one.granted_at < span.until)
    ]
    found += [
        _held_time_within(view.node, one.claim, one.granted_at, span.until, span, one.idle_s)
        for gpu, one in view.reservations.items()
        if (gpu, one.claim.owner, one.granted_at) not in ended
    ]
    return found


def _held_time_within(
    node: str, claim: Claim, start: float | None, end: float, span: TimeSpan, idle_s: float = 0.0
) -> HeldTime:
    # A record that cannot be read has no time of its grant, and no hours.
    held_s = span.overlap_s(start, end) if start else 0.0
    whole_s = end - start if start else 0.0
    inside = held_s / whole_s if whole_s > 0 else 0.0
    idle_inside_s = min(max(idle_s, 0.0) * inside, held_s)
    return HeldTime(node, claim.owner, claim.type, claim.user, held_s, idle_inside_s)
