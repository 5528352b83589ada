"""The node's book: its own copy of its part of the ledger; pure.

All times are seconds since the epoch by the store's clock. The node estimates them from its own
clock while the store does not answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.co_holders import (
    add_holder,
    combine,
    holder_of,
    select_holders,
    shares_with,
    without_expired,
)
from canhazgpu.ledger.journal_entries import GRANT, QUARANTINE, RELEASE, UNQUARANTINE, JournalEntry
from canhazgpu.ledger.local.book.intent import Intent
from canhazgpu.ledger.release_reasons import was_unused
from canhazgpu.ledger.values import Claim, NodeView, Quarantine, Reservation


def is_job_owner(owner: str) -> bool:
    """Return whether the owner is a job; only hooks make such reservations."""
    return owner.startswith("job:")


@dataclass(frozen=True, slots=True)
class Book:
    """The node's reservations, release times, quarantines and open intents.

    `job_owners` are the jobs whose reservations the node recorded itself; the book keeps these
    even if the store lacks them, with the numbers of their grants in `grant_numbers`. `intents` are
    grants that are not committed yet. Everything else was read from the store at `read_at` (0:
    never).
    """

    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    released_at: Mapping[str, float] = field(default_factory=dict)
    quarantines: Mapping[str, Quarantine] = field(default_factory=dict)
    job_owners: frozenset[str] = frozenset()
    read_at: float = 0.0
    intents: tuple[Intent, ...] = ()
    grant_numbers: Mapping[str, int] = field(default_factory=dict)

    def job_reservations(self) -> dict[str, Reservation]:
        """Return the reservations of the node's own jobs by GPU."""
        return select_holders(self.reservations, lambda one: one.claim.owner in self.job_owners)

    def gpus_of(self, owner: str) -> list[str]:
        """Return the GPUs that the owner holds."""
        return [gpu for gpu, held in self.reservations.items() if holder_of(held, owner)]

    def without_expired(self, now: float) -> Book:
        """Return the book without the expired reservations."""
        kept, released = without_expired(self.reservations, now), dict(self.released_at)
        for gpu, one in self.reservations.items():
            if gpu not in kept:
                released[gpu] = max(one.expires_at or 0.0, released.get(gpu, 0.0))
        return replace(self, reservations=kept, released_at=released)

    def without_earlier_boots(self, boot_id: str | None) -> Book:
        """Return the book without the reservations of earlier boots."""
        return replace(
            self,
            reservations=select_holders(
                self.reservations,
                lambda one: None in (boot_id, one.claim.boot_id) or one.claim.boot_id == boot_id,
            ),
        )

    def with_entry(self, entry: JournalEntry) -> Book:
        """Return the book after this entry."""
        if entry.kind == GRANT and entry.claim is not None:
            book = self.without_intent(entry.grant)
            return book.with_grant(
                entry.claim, entry.gpus, entry.at, entry.expires_at, number=entry.grant
            )
        if entry.kind == RELEASE:
            if entry.grant is not None and self.grant_numbers.get(entry.owner) != entry.grant:
                return self.without_intent(entry.grant)
            unused = was_unused(entry.reason, entry.by)
            return self.with_release(entry.owner, entry.gpus, entry.at, unused=unused)
        if entry.kind == QUARANTINE:
            new = {gpu: Quarantine(gpu, entry.reason, entry.at, entry.by) for gpu in entry.gpus}
            return replace(self, quarantines={**new, **self.quarantines})
        if entry.kind == UNQUARANTINE:
            kept = {gpu: one for gpu, one in self.quarantines.items() if gpu not in entry.gpus}
            return replace(self, quarantines=kept)
        return self

    def without_intent(self, number: int | None) -> Book:
        """Return the book without the intent of this number, if it has one."""
        return replace(self, intents=tuple(one for one in self.intents if one.number != number))

    def with_grant(
        self,
        claim: Claim,
        gpus: Sequence[str],
        at: float,
        expires_at: float | None = None,
        *,
        number: int | None = None,
    ) -> Book:
        """Return the book after a grant: the owner holds exactly these GPUs.

        A share stays beside other shares of its kind; any other grant stands alone.
        """
        others = [gpu for gpu in self.gpus_of(claim.owner) if gpu not in gpus]
        book = self.with_release(claim.owner, others, at) if others else self
        held: Mapping[str, Reservation] = book.reservations
        for gpu in gpus:
            held = add_holder(held, Reservation(gpu, claim, at, expires_at))
        job = {claim.owner} if is_job_owner(claim.owner) else set()
        numbers = {**book.grant_numbers, claim.owner: number} if number and job else {}
        return replace(
            book,
            reservations=held,
            job_owners=book.job_owners | job,
            grant_numbers=numbers or book.grant_numbers,
        )

    def with_release(
        self, owner: str, gpus: Sequence[str], at: float, *, unused: bool = False
    ) -> Book:
        """Return the book after a release of the owner's GPUs (those in `gpus`, if not empty).

        A GPU that others share is not released before the last of them releases it. The release
        time of an `unused` one stays.
        """
        named = {gpu for gpu in self.gpus_of(owner) if not gpus or gpu in gpus}
        kept = select_holders(
            self.reservations, lambda one: one.claim.owner != owner or one.gpu not in named
        )
        freed = set() if unused else named - kept.keys()
        times = {gpu: max(at, self.released_at.get(gpu, 0.0)) for gpu in freed}
        remaining = {one.claim.owner for held in kept.values() for one in held.holders}
        ended = set() if owner in remaining else {owner}
        return replace(
            self,
            reservations=kept,
            released_at={**self.released_at, **times},
            job_owners=self.job_owners - ended,
            grant_numbers={one: n for one, n in self.grant_numbers.items() if one not in ended},
        )

    def updated_from_view(self, view: NodeView) -> Book:
        """Return the book with everything but its own jobs replaced by the store's view.

        A view that is older than the book's `read_at` changes nothing.
        """
        if view.read_at <= self.read_at:
            return self
        others = select_holders(view.reservations, lambda one: not is_job_owner(one.claim.owner))
        times = {
            gpu: max(view.released_at.get(gpu, 0.0), self.released_at.get(gpu, 0.0))
            for gpu in {*view.released_at, *self.released_at}
        }
        return replace(
            self,
            reservations={**others, **self.job_reservations()},
            released_at=times,
            quarantines=view.quarantines,
            read_at=view.read_at,
        )


def lost_job_reservations(book: Book, view: NodeView) -> dict[str, tuple[Reservation, ...]]:
    """Return by owner the job reservations of the book that the store's view lacks."""
    found: dict[str, tuple[Reservation, ...]] = {}
    for gpu, held in book.job_reservations().items():
        for one in held.holders:
            owner = one.claim.owner
            if not holder_of(view.reservations.get(gpu), owner):
                found[owner] = (*found.get(owner, ()), one)
    return found


def lost_timed_reservations(book: Book, view: NodeView) -> list[Reservation]:
    """Return the timed reservations of the book that the store's view lacks.

    The book does not know whether they were released or lost. Reservations of running commands
    are not included: the process that renews such a reservation restores it.
    """
    return [
        one
        for gpu, one in book.without_expired(view.read_at).reservations.items()
        if gpu not in view.reservations
        and one.expires_at is not None
        and not is_job_owner(one.claim.owner)
    ]


def with_book_jobs(view: NodeView, book: Book) -> NodeView:
    """Return the view with the job reservations of the book in place of the store's.

    What the store has of the same owner is shown as the store has it, and so are shares that only
    the store has beside those of the book.
    """
    shown = dict(view.reservations)
    for gpu, jobs in book.job_reservations().items():
        known = view.reservations.get(gpu)
        holders = [holder_of(known, one.claim.owner) or one for one in jobs.holders]
        if known is not None and all(shares_with(one.claim, known) for one in holders):
            owners = {one.claim.owner for one in holders}
            holders += [one for one in known.holders if one.claim.owner not in owners]
        shown[gpu] = combine(sorted(holders, key=lambda one: one.granted_at)) or jobs
    return view if shown == view.reservations else replace(view, reservations=shown)
