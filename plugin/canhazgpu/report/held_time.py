"""How long each owner held a GPU within a time span, from a node's history; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.gpu_use import driver_rows
from canhazgpu.ledger.journal_entries import USE_KINDS
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
class OwnerUse:
    """An owner's use of all its GPUs on a node; shares from 0 to 1.

    `busy` is the share of the time in which kernels ran, `peak_memory` the highest share of the
    memory that was in use, in the mean of the GPUs; None where it is not known.
    """

    busy: float
    peak_memory: float | None


NO_USES: Mapping[str, OwnerUse] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class HeldTime:
    """One GPU held by one owner: the time within the span.

    Of a GPU that the owner shares, its part of the time counts: an hour of a quarter of a GPU is
    a quarter of a GPU hour. `idle_s` is the part of it in which scans found the GPU reserved and
    unused. `use` is what the owner made of its GPUs on the node, None where nothing tells it.
    """

    node: str
    owner: str
    type: str
    user: str
    held_s: float
    idle_s: float = 0.0
    use: OwnerUse | None = None

    @property
    def wasted_s(self) -> float:
        """How long the GPU was held and did not compute; by the scans alone without a use."""
        return self.idle_s if self.use is None else self.held_s * (1 - self.use.busy)


def held_times(view: NodeView, events: Iterable[Event], span: TimeSpan) -> list[HeldTime]:
    """Return the held times of a node within the span.

    `events` are the node's events from the beginning of the span on, read after the view. A
    reservation released in between is in both and counts once. A release event has the time of its
    grant, so the grants before the span are not needed. A grant that was given back unused counts
    nothing.
    """
    events = list(events)
    uses = _uses(events)
    releases = [one for one in events if one.kind == RELEASE and one.claim is not None]
    ended = {(one.gpu, one.claim.owner, one.granted_at) for one in releases if one.claim}
    found = [
        _held_time_within(view.node, one.claim, one.granted_at, one.at, span, one.idle_s, uses)
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


def _uses(events: Iterable[Event]) -> dict[str, OwnerUse]:
    """Return what was noted of each owner's use, by the driver."""
    found = {}
    for event in events:
        noted = event.facts.get("use") if event.kind in USE_KINDS else None
        use = owner_use(noted)
        if use is not None and event.claim is not None:
            found[event.claim.owner] = use
    return found


def owner_use(use: Any) -> OwnerUse | None:
    """Return the use that the fact ``use`` tells by the driver, if any."""
    rows = driver_rows(use)
    if not rows:
        return None
    peaks = [one.peak_memory for one in rows if one.peak_memory is not None]
    busy = sum(one.busy for one in rows) / len(rows)
    return OwnerUse(busy, sum(peaks) / len(peaks) if peaks else None)


def _held_time_within(
    node: str,
    claim: Claim,
    start: float | None,
    end: float,
    span: TimeSpan,
    idle_s: float = 0.0,
    uses: Mapping[str, OwnerUse] = NO_USES,
) -> HeldTime:
    # A record that cannot be read has no time of the grant, and so no hours.
    held_s = span.overlap_s(start, end) if start else 0.0
    whole_s = end - start if start else 0.0
    inside = held_s / whole_s if whole_s > 0 else 0.0
    idle_inside_s = min(max(idle_s, 0.0) * inside, held_s)
    part = claim.share.fraction if claim.share else 1.0
    use = uses.get(claim.owner)
    return HeldTime(
        node, claim.owner, claim.type, claim.user, held_s * part, idle_inside_s * part, use
    )
