"""How long each owner held a GPU within a time span, from a node's history; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from canhazgpu.ledger.release_reasons import was_unused
from canhazgpu.ledger.values import Claim, Event, NodeView

RELEASE = "release"


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """A time span, in seconds since the epoch by the clock of Redis."""

    since: float
    until: float

    def overlap_s(self, start: float, end: float) -> float:
        """Return how many seconds from `start` to `end` are within the span."""
        return max(min(end, self.until) - max(start, self.since), 0.0)


@dataclass(frozen=True, slots=True)
class HeldTime:
    """One GPU held by one owner: the time within the span.

    Of a GPU that the owner shares, its part of the time counts: an hour of a quarter of a GPU is
    a quarter of a GPU hour. `idle_s` is the part of it in which scans found the GPU reserved and
    unused.
    """

    node: str
    owner: str
    type: str
    user: str
    held_s: float
    idle_s: float = 0.0


def held_times(view: NodeView, events: Iterable[Event], span: TimeSpan) -> list[HeldTime]:
    """Return the held times of a node within the span.

    `events` are the node's events from the beginning of the span on, read after the view. A
    reservation released in between is in both and counts once. A release event has the time of its
    grant, so the grants before the span are not needed. A grant that was given back unused counts
    nothing.
    """
    releases = [one for one in events if one.kind == RELEASE and one.claim is not None]
    ended = {(one.gpu, one.claim.owner, one.granted_at) for one in releases if one.claim}
    found = [
        _held_time_within(view.node, one.claim, one.granted_at, one.at, span, one.idle_s)
        for one in releases
        if one.claim
        and not was_unused(one.reason, one.by)
        and (one.granted_at is None or one.granted_at < span.until)
    ]
    found += [
        _held_time_within(view.node, one.claim, one.granted_at, span.until, span, one.idle_s)
        for one in view.all_reservations()
        if (one.gpu, one.claim.owner, one.granted_at) not in ended
    ]
    return found


def _held_time_within(
    node: str, claim: Claim, start: float | None, end: float, span: TimeSpan, idle_s: float = 0.0
) -> HeldTime:
    # A record that cannot be read has no time of the grant, and so no hours.
    held_s = span.overlap_s(start, end) if start else 0.0
    whole_s = end - start if start else 0.0
    inside = held_s / whole_s if whole_s > 0 else 0.0
    idle_inside_s = min(max(idle_s, 0.0) * inside, held_s)
    part = claim.share.fraction if claim.share else 1.0
    return HeldTime(node, claim.owner, claim.type, claim.user, held_s * part, idle_inside_s * part)
