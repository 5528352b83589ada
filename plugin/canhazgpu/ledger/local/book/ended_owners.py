"""People's reservations that the node has released: an old copy of the store may revive them; pure.

A run whose processes have ended is found dead, whatever the store says. A timed reservation has no
processes, and those of a run that was revoked go on. So the node remembers for a while who holds
nothing any more: times are seconds since the epoch by the store's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.values import Reservation

KEPT_S = 120.0
"""At least so long: what another process has read of the store may be so old."""
REVOKED_KEPT_S = 7 * 24 * 3600.0
"""For a run that somebody else released: its processes may go on so long."""
MAX_PER_USER = 16
"""Of one user, so that nobody can push out what others have released."""
MAX_ENDED = 256
"""Of all users. Above it, those are forgotten first whose time ends first."""


@dataclass(frozen=True, slots=True)
class EndedOwner:
    """An owner who holds nothing any more: until when that is remembered, and whose it was.

    `uid` is None where it is not known, as in a book of an earlier release.
    """

    until: float
    uid: int | None = None


EndedOwners = Mapping[str, EndedOwner]


def with_ended(
    ended: EndedOwners, owner: str, held: Sequence[Reservation], at: float, *, is_revoked: bool
) -> EndedOwners:
    """Return them with this owner, who held these reservations (one or more) until `at`."""
    ends = [one.expires_at for one in held if one.expires_at is not None]
    until = max([at + KEPT_S, *ends])
    if is_revoked and not ends:
        until = at + REVOKED_KEPT_S
    uid = held[0].claim.uid
    known = {one: end for one, end in ended.items() if end.until > at and one != owner}
    own = _latest({one: end for one, end in known.items() if end.uid == uid}, MAX_PER_USER - 1)
    others = {one: end for one, end in known.items() if end.uid != uid}
    return _latest({**others, **own, owner: EndedOwner(until, uid)}, MAX_ENDED)


def _latest(ended: EndedOwners, count: int) -> dict[str, EndedOwner]:
    return dict(sorted(ended.items(), key=lambda one: one[1].until)[-count:])


def without_owner(ended: EndedOwners, owner: str) -> EndedOwners:
    """Return them without an owner who was granted GPUs again."""
    return {one: end for one, end in ended.items() if one != owner} if owner in ended else ended
