"""The node's own copy of its part of the ledger; pure.

All times are seconds since the epoch by the store's clock, which the node continues by its own
while the store is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from canhazgpu.ledger.journal_entries import GRANT, QUARANTINE, RELEASE, UNQUARANTINE, JournalEntry
from canhazgpu.ledger.values import Claim, NodeView, Quarantine, Reservation


def is_job_owner(owner: str) -> bool:
    """Tell whether the token is a job's: those are the hooks' own doing."""
    return owner.startswith("job:")


@dataclass(frozen=True, slots=True)
class Book:
    """What the node knows: its jobs by its own doing, people and the rest as last read.

    `job_owners` are the owners of the own jobs, which the book keeps whatever the store says.
    `read_at` is when the rest was read, 0 for never.
    """

    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    released_at: Mapping[str, float] = field(default_factory=dict)
    quarantines: Mapping[str, Quarantine] = field(default_factory=dict)
    job_owners: frozenset[str] = frozenset()
    read_at: float = 0.0

    def job_reservations(self) -> dict[str, Reservation]:
        """Return what the node's own jobs hold, by GPU."""
        return {
            gpu: one for gpu, one in self.reservations.items() if one.claim.owner in self.job_owners
        }

    def gpus_of(self, owner: str) -> list[str]:
        """Return the GPUs of the owner."""
        return [gpu for gpu, one in self.reservations.items() if one.claim.owner == owner]

    def without_expired(self, now: float) -> Book:
        """Return the book without what has expired."""
        kept, released = {}, dict(self.released_at)
        for gpu, one in self.reservations.items():
            if one.expires_at is not None and one.expires_at <= now:
                released[gpu] = max(one.expires_at, released.get(gpu, 0.0))
            else:
                kept[gpu] = one
        return replace(self, reservations=kept, released_at=released)

    def without_earlier_boots(self, boot_id: str | None) -> Book:
        """Return the book without whom a reboot ended."""
        return replace(
            self,
            reservations={
                gpu: one
                for gpu, one in self.reservations.items()
                if None in (boot_id, one.claim.boot_id) or one.claim.boot_id == boot_id
            },
        )

    def with_entry(self, entry: JournalEntry) -> Book:
        """Return the book as the entry leaves it."""
        if entry.kind == GRANT and entry.claim is not None:
            return self.with_grant(entry.claim, entry.gpus, entry.at, entry.expires_at)
        if entry.kind == RELEASE:
            return self.with_release(entry.owner, entry.gpus, entry.at)
        if entry.kind == QUARANTINE:
            new = {gpu: Quarantine(gpu, entry.reason, entry.at, entry.by) for gpu in entry.gpus}
            return replace(self, quarantines={**new, **self.quarantines})
        if entry.kind == UNQUARANTINE:
            kept = {gpu: one for gpu, one in self.quarantines.items() if gpu not in entry.gpus}
            return replace(self, quarantines=kept)
        return self

    def with_grant(
        self, claim: Claim, gpus: Sequence[str], at: float, expires_at: float | None = None
    ) -> Book:
        """Return the book in which the owner holds exactly these GPUs."""
        others = [gpu for gpu in self.gpus_of(claim.owner) if gpu not in gpus]
        book = self.with_release(claim.owner, others, at) if others else self
        known = book.reservations
        new = {
            gpu: Reservation(gpu, claim, at, expires_at)
            for gpu in gpus
            if gpu not in known or known[gpu].claim.owner != claim.owner
        }
        own = book.job_owners | {claim.owner} if is_job_owner(claim.owner) else book.job_owners
        return replace(book, reservations={**known, **new}, job_owners=own)

    def with_release(self, owner: str, gpus: Sequence[str], at: float) -> Book:
        """Return the book without what the owner held (of `gpus`, if any are named)."""
        gone = [gpu for gpu in self.gpus_of(owner) if not gpus or gpu in gpus]
        kept = {gpu: one for gpu, one in self.reservations.items() if gpu not in gone}
        times = {gpu: max(at, self.released_at.get(gpu, 0.0)) for gpu in gone}
        left = {one.claim.owner for one in kept.values()}
        return replace(
            self,
            reservations=kept,
            released_at={**self.released_at, **times},
            job_owners=self.job_owners if owner in left else self.job_owners - {owner},
        )

    def updated_from_view(self, view: NodeView) -> Book:
        """Return the book with everything but the jobs as the ledger shows it.

        A view that was read before the book's own is no news.
        """
        if view.read_at <= self.read_at:
            return self
        others = {
            gpu: one for gpu, one in view.reservations.items() if not is_job_owner(one.claim.owner)
        }
        times = {
            gpu: max(view.released_at.get(gpu, 0.0), self.released_at.get(gpu, 0.0))
            for gpu in {*view.released_at, *self.released_at}
        }
        return Book(
            {**others, **self.job_reservations()},
            times,
            view.quarantines,
            self.job_owners,
            view.read_at,
        )


def lost_job_reservations(book: Book, view: NodeView) -> dict[str, tuple[Reservation, ...]]:
    """Return by owner what the book's jobs hold and the ledger does not say so."""
    found: dict[str, tuple[Reservation, ...]] = {}
    for gpu, one in book.job_reservations().items():
        known = view.reservations.get(gpu)
        if known is None or known.claim.owner != one.claim.owner:
            owner = one.claim.owner
            found[owner] = (*found.get(owner, ()), one)
    return found


def lost_timed_reservations(book: Book, view: NodeView) -> list[Reservation]:
    """Return the reservations for a time that the book has and the ledger no more.

    Whether they were released or lost the book cannot tell. A command's reservation is not among
    them: whoever keeps it brings it back.
    """
    return [
        one
        for gpu, one in book.without_expired(view.read_at).reservations.items()
        if gpu not in view.reservations
        and one.expires_at is not None
        and not is_job_owner(one.claim.owner)
    ]


def with_book_jobs(view: NodeView, book: Book) -> NodeView:
    """Return the view in which jobs hold what the book says, whatever the ledger says."""
    jobs = book.job_reservations()
    if all(view.reservations.get(gpu) == one for gpu, one in jobs.items()):
        return view
    shown = {
        gpu: known
        if (known := view.reservations.get(gpu)) and known.claim.owner == one.claim.owner
        else one
        for gpu, one in jobs.items()
    }
    return replace(view, reservations={**view.reservations, **shown})
