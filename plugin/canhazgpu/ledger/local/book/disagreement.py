"""How a node's own reservations and the store's view of them are made to agree again; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.journal_entries import GRANT, RELEASE, JournalEntry
from canhazgpu.ledger.local.book.book import Book, is_job_owner
from canhazgpu.ledger.local.book.book_and_store import (
    forgotten_extensions,
    lost_own_reservations,
    lost_timed_reservations,
    revived_owners,
)
from canhazgpu.ledger.local.book.grant_steps import extension_entry
from canhazgpu.ledger.release_reasons import EXPIRED, NOT_COMMITTED
from canhazgpu.ledger.values import Event, NodeView, Reservation

RESTORED_REASON = "restored: the store had lost it"
REVIVED_REASON = "the node had released it: the store had an old copy"
GONE_REASON = "its processes are gone"
JOB_GONE_REASON = "job gone"
ROUNDED_S = 0.002
"""The store and the book's file round the time of a grant down to milliseconds."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """What the book and a view of the store do not agree on.

    `lost` are by owner the node's own reservations that the view lacks, and `timed` people's timed
    ones of which the node knows from the store alone. `extensions` are own ones that end too early
    in the view. `revived` are owners that the view has, and the node has released.
    """

    lost: Mapping[str, tuple[Reservation, ...]]
    timed: tuple[Reservation, ...]
    extensions: tuple[Reservation, ...]
    revived: tuple[str, ...]

    @property
    def is_none(self) -> bool:
        """Whether both agree."""
        return not (self.lost or self.timed or self.extensions or self.revived)

    def of_people(self) -> list[Reservation]:
        """Return people's lost reservations; a release of these may be in the history."""
        own = (one for held in self.lost.values() for one in held)
        return [*(one for one in own if not is_job_owner(one.claim.owner)), *self.timed]


def disagreement(book: Book, view: NodeView) -> Disagreement:
    """Compare the book with the store's view of the node."""
    return Disagreement(
        lost_own_reservations(book, view),
        tuple(lost_timed_reservations(book, view)),
        tuple(forgotten_extensions(book, view)),
        tuple(revived_owners(book, view)),
    )


def find_release(events: Iterable[Event], one: Reservation, *, is_own: bool) -> Event | None:
    """Return the recorded release of a reservation that the store lacks, None if it was lost.

    The end of the node's own reservation is the book's: that the store let it expire is no release.
    Neither is that of an earlier grant to the same owner, which the node may have undone in the
    very moment of this one.
    """
    return next(
        (
            event
            for event in events
            if event.kind == RELEASE
            and event.gpu == one.gpu
            and event.claim is not None
            and event.claim.owner == one.claim.owner
            and event.at >= one.granted_at
            and (event.granted_at or event.at) >= one.granted_at - ROUNDED_S
            and not (is_own and event.reason in (EXPIRED, NOT_COMMITTED))
        ),
        None,
    )


def release_of_gone(book: Book, owner: str, now: float) -> JournalEntry:
    """Return the entry for an owner of the book that is gone."""
    reason = JOB_GONE_REASON if is_job_owner(owner) else GONE_REASON
    return JournalEntry(RELEASE, now, owner, reason=reason, grant=book.grant_numbers.get(owner))


def release_as_recorded(book: Book, one: Reservation, event: Event) -> JournalEntry:
    """Return the entry by which the book learns of a release that was made in the store."""
    owner = one.claim.owner
    return JournalEntry(
        RELEASE,
        event.at,
        owner,
        (one.gpu,),
        reason=event.reason,
        by=event.by,
        grant=book.grant_numbers.get(owner),
    )


def restoring_entries(book: Book, owner: str, now: float) -> tuple[JournalEntry, ...]:
    """Return the entries by which the store has again what the node's own owner holds."""
    held = [
        one
        for each in book.own_reservations().values()
        for one in each.holders
        if one.claim.owner == owner
    ]
    if not held:
        return ()
    first = min(held, key=lambda one: one.expires_at or 0.0)
    grant = JournalEntry(
        GRANT,
        first.granted_at,
        owner,
        tuple(one.gpu for one in held),
        first.claim,
        RESTORED_REASON,
        expires_at=first.expires_at,
        grant=book.grant_numbers.get(owner),
    )
    return (grant, *_entries_of_later_ends(book, grant, held, now))


def restored_timed(
    book: Book, owner: str, lost: list[Reservation], view: NodeView
) -> tuple[JournalEntry, ...]:
    """Return the entries for timed reservations of which the node knows from the store alone.

    They take no GPU from anybody.
    """
    kept = [one.gpu for one in view.all_reservations() if one.claim.owner == owner]
    first = min(lost, key=lambda one: one.expires_at or 0.0)
    grant = JournalEntry(
        GRANT,
        first.granted_at,
        owner,
        (*kept, *(one.gpu for one in lost)),
        first.claim,
        RESTORED_REASON,
        expires_at=first.expires_at,
        yields=True,
    )
    return (grant, *_entries_of_later_ends(book, grant, lost, view.read_at))


def _entries_of_later_ends(
    book: Book, grant: JournalEntry, held: Iterable[Reservation], now: float
) -> Iterator[JournalEntry]:
    """Yield an entry for each GPU held for longer than the grant says, which has one end."""
    for one in held:
        if one.expires_at != grant.expires_at:
            yield extension_entry(book, one, now)


def release_of_revived(owners: Collection[str], now: float) -> tuple[JournalEntry, ...]:
    """Return the entries that release again what an old copy of the store has revived."""
    return tuple(JournalEntry(RELEASE, now, one, reason=REVIVED_REASON) for one in owners)
