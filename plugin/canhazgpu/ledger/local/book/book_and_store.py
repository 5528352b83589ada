"""What the book and the store's view of the node do not agree on, and who wins; pure.

The book wins for what the node recorded itself, jobs' and people's; the store for the rest.
"""

from __future__ import annotations

from dataclasses import replace

from canhazgpu.ledger.co_holders import (
    change_holders,
    combine,
    holder_of,
    select_holders,
    shares_with,
)
from canhazgpu.ledger.local.book.book import Book, is_job_owner
from canhazgpu.ledger.values import NodeView, Reservation

END_TOLERANCE_S = 0.01
"""Ends of a reservation in book and store that differ by less are equal: both are rounded."""


def updated_from_view(book: Book, view: NodeView) -> Book:
    """Return the book with everything but its own reservations replaced by the store's view.

    A view that is older than the book's `read_at` changes nothing. An own reservation ends when the
    store says, if that is later: somebody extended it there.
    """
    if view.read_at <= book.read_at:
        return book
    others = select_holders(
        view.reservations,
        lambda one: (
            not is_job_owner(one.claim.owner)
            and one.claim.owner not in book.own_owners
            and one.claim.owner not in book.ended
        ),
    )
    times = {
        gpu: max(view.released_at.get(gpu, 0.0), book.released_at.get(gpu, 0.0))
        for gpu in {*view.released_at, *book.released_at}
    }
    own = change_holders(book.own_reservations(), lambda one: _with_later_end(one, view))
    return replace(
        book,
        reservations={**others, **own},
        released_at=times,
        quarantines=view.quarantines,
        read_at=view.read_at,
    )


def lost_own_reservations(book: Book, view: NodeView) -> dict[str, tuple[Reservation, ...]]:
    """Return by owner the book's own reservations that the store's view lacks."""
    found: dict[str, tuple[Reservation, ...]] = {}
    for gpu, held in book.own_reservations().items():
        for one in held.holders:
            owner = one.claim.owner
            if not holder_of(view.reservations.get(gpu), owner):
                found[owner] = (*found.get(owner, ()), one)
    return found


def lost_timed_reservations(book: Book, view: NodeView) -> list[Reservation]:
    """Return the timed reservations that the book has from the store, and the view lacks.

    The book does not know whether they were released or lost. Reservations of running commands
    are not included: the process that renews such a reservation restores it. What the book has of
    before the boot, and the store not any more, was released meanwhile: the node may have been off
    for longer than the store keeps its history.
    """
    if not book.read_at:
        return []
    return [
        one
        for gpu, one in book.without_expired(view.read_at).reservations.items()
        if gpu not in view.reservations
        and one.expires_at is not None
        and one.claim.owner not in book.own_owners
    ]


def forgotten_extensions(book: Book, view: NodeView) -> list[Reservation]:
    """Return the book's own reservations that end later than the view says."""
    return [
        one
        for held in book.own_reservations().values()
        for one in held.holders
        if one.expires_at is not None
        and (known := holder_of(view.reservations.get(one.gpu), one.claim.owner))
        and known.expires_at is not None
        and known.expires_at < one.expires_at - END_TOLERANCE_S
    ]


def revived_owners(book: Book, view: NodeView) -> list[str]:
    """Return the owners that the view has again although the node has released what they held.

    Those who are about to be granted GPUs anew are none.
    """
    owners = {one.claim.owner for one in view.all_reservations()}
    asking = {one.claim.owner for one in book.intents}
    return sorted((owners & book.ended.keys()) - asking)


def with_own_reservations(view: NodeView, book: Book) -> NodeView:
    """Return the view with the book's own reservations in place of the store's.

    What the store has of the same job is shown as the store has it, and so are shares that only
    the store has beside those of the book. Of a person's reservation the store has the heartbeat,
    and for how long it is idle; whose processes it depends on, and how long it lasts, the book
    knows. What the node has released is not shown.
    """
    ended = book.ended
    shown = dict(view.reservations)
    if not ended.keys().isdisjoint(one.claim.owner for one in view.all_reservations()):
        shown = select_holders(shown, lambda one: one.claim.owner not in ended)
    for gpu, own in book.own_reservations().items():
        known = view.reservations.get(gpu)
        holders = [_as_shown(one, holder_of(known, one.claim.owner)) for one in own.holders]
        if known is not None and all(shares_with(one.claim, known) for one in holders):
            owners = {one.claim.owner for one in holders}
            holders += [one for one in known.holders if one.claim.owner not in owners]
        shown[gpu] = combine(sorted(holders, key=lambda one: one.granted_at)) or own
    return view if shown == view.reservations else replace(view, reservations=shown)


def _as_shown(own: Reservation, known: Reservation | None) -> Reservation:
    if known is None:
        return own
    if is_job_owner(own.claim.owner):
        return known
    later = [one.expires_at for one in (own, known) if one.expires_at is not None]
    return replace(
        own,
        expires_at=max(later, default=None),
        renewed_at=known.renewed_at,
        idle_s=known.idle_s,
    )


def _with_later_end(own: Reservation, view: NodeView) -> Reservation:
    known = holder_of(view.reservations.get(own.gpu), own.claim.owner)
    if known is None or None in (known.expires_at, own.expires_at):
        return own
    assert known.expires_at is not None and own.expires_at is not None  # noqa: S101 - for mypy
    return replace(own, expires_at=max(known.expires_at, own.expires_at))
