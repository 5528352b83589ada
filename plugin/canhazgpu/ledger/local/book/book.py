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
    change_holders,
    holder_of,
    select_holders,
)
from canhazgpu.ledger.journal_entries import (
    EXTEND,
    GRANT,
    QUARANTINE,
    RELEASE,
    UNQUARANTINE,
    JournalEntry,
)
from canhazgpu.ledger.local.book.ended_owners import EndedOwners, with_ended, without_owner
from canhazgpu.ledger.local.book.intent import Intent
from canhazgpu.ledger.release_reasons import was_unused
from canhazgpu.ledger.values import Claim, Quarantine, Reservation
from canhazgpu.node.process_id import ProcessId


def is_job_owner(owner: str) -> bool:
    """Return whether the owner is a job; only hooks make such reservations."""
    return owner.startswith("job:")


@dataclass(frozen=True, slots=True)
class Book:
    """The node's reservations, release times, quarantines and open intents.

    `own_owners` are the jobs and people whose reservations the node recorded itself; the book keeps
    these even if the store lacks them, with the numbers of their grants in `grant_numbers`.
    `intents` are grants that are not committed yet. `released_by` names the user who released a GPU
    last, as far as the node knows. `ended` are owners whose reservations the node has released,
    whatever an old copy of the store says. Everything else was read from the store at `read_at` (0:
    never).
    """

    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    released_at: Mapping[str, float] = field(default_factory=dict)
    quarantines: Mapping[str, Quarantine] = field(default_factory=dict)
    own_owners: frozenset[str] = frozenset()
    read_at: float = 0.0
    intents: tuple[Intent, ...] = ()
    grant_numbers: Mapping[str, int] = field(default_factory=dict)
    released_by: Mapping[str, str] = field(default_factory=dict)
    ended: EndedOwners = field(default_factory=dict)

    def own_reservations(self) -> dict[str, Reservation]:
        """Return the reservations that the node recorded itself, by GPU."""
        return select_holders(self.reservations, lambda one: one.claim.owner in self.own_owners)

    def gpus_of(self, owner: str) -> list[str]:
        """Return the GPUs that the owner holds."""
        return [gpu for gpu, held in self.reservations.items() if holder_of(held, owner)]

    def without_expired(self, now: float) -> Book:
        """Return the book without the expired reservations that it has from the store alone."""
        kept = select_holders(
            self.reservations,
            lambda one: (
                one.expires_at is None or one.expires_at > now or one.claim.owner in self.own_owners
            ),
        )
        released = {gpu: one for gpu, one in self.reservations.items() if gpu not in kept}
        times = {
            gpu: max(one.expires_at or 0.0, self.released_at.get(gpu, 0.0))
            for gpu, one in released.items()
        }
        users = {gpu: one.claim.user for gpu, one in released.items()}
        return replace(
            self,
            reservations=kept,
            released_at={**self.released_at, **times},
            released_by={**self.released_by, **users},
        )

    def own_expired(self, now: float) -> list[Reservation]:
        """Return the node's own reservations that have expired, but are not released yet."""
        return [
            one
            for held in self.reservations.values()
            for one in held.holders
            if one.expires_at is not None
            and one.expires_at <= now
            and one.claim.owner in self.own_owners
        ]

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
            return self.with_release(
                entry.owner,
                entry.gpus,
                entry.at,
                unused=was_unused(entry.reason, entry.by),
                is_revoked=bool(entry.by),
            )
        if entry.kind == EXTEND and entry.expires_at is not None:
            return self.with_end(entry.owner, entry.gpus, entry.expires_at)
        return self._with_quarantine_entry(entry)

    def _with_quarantine_entry(self, entry: JournalEntry) -> Book:
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
        is_own: bool = False,
    ) -> Book:
        """Return the book after a grant: the owner holds exactly these GPUs.

        A share stays beside other shares of its kind; any other grant stands alone. A job's grant
        is the node's own, and so is a person's that has a number, or of which `is_own` says so.
        """
        owner = claim.owner
        others = [gpu for gpu in self.gpus_of(owner) if gpu not in gpus]
        book = self.with_release(owner, others, at) if others else self
        held: Mapping[str, Reservation] = book.reservations
        for gpu in gpus:
            held = add_holder(held, Reservation(gpu, claim, at, expires_at))
        own = {owner} if is_job_owner(owner) or number or is_own else set()
        return replace(
            book,
            reservations=held,
            own_owners=book.own_owners | own,
            grant_numbers={**book.grant_numbers, owner: number} if number else book.grant_numbers,
            ended=without_owner(book.ended, owner),
        )

    def with_end(self, owner: str, gpus: Sequence[str], expires_at: float) -> Book:
        """Return the book with a later end of the owner's timed reservations of these GPUs."""

        def extended(one: Reservation) -> Reservation:
            if one.claim.owner != owner or one.expires_at is None or one.gpu not in gpus:
                return one
            return replace(one, expires_at=max(one.expires_at, expires_at))

        return replace(self, reservations=change_holders(self.reservations, extended))

    def with_processes(self, owner: str, processes: Sequence[ProcessId]) -> Book:
        """Return the book with other processes of the owner, on whose lives its claim depends."""

        def changed(one: Reservation) -> Reservation:
            if one.claim.owner != owner or one.claim.processes == tuple(processes):
                return one
            return replace(one, claim=replace(one.claim, processes=tuple(processes)))

        return replace(self, reservations=change_holders(self.reservations, changed))

    def with_release(
        self,
        owner: str,
        gpus: Sequence[str],
        at: float,
        *,
        unused: bool = False,
        is_revoked: bool = False,
    ) -> Book:
        """Return the book after a release of the owner's GPUs (those in `gpus`, if not empty).

        A GPU that others share is not released before the last of them releases it. The release
        time of an `unused` one stays. `is_revoked`: somebody else than the owner did it.
        """
        named = {gpu for gpu in self.gpus_of(owner) if not gpus or gpu in gpus}
        released = [one for gpu in named if (one := holder_of(self.reservations[gpu], owner))]
        kept = select_holders(
            self.reservations, lambda one: one.claim.owner != owner or one.gpu not in named
        )
        freed = set() if unused else named - kept.keys()
        times = {gpu: max(at, self.released_at.get(gpu, 0.0)) for gpu in freed}
        users = {one.gpu: one.claim.user for one in released if one.gpu in freed}
        remaining = {one.claim.owner for held in kept.values() for one in held.holders}
        ended = set() if owner in remaining else {owner}
        book = replace(
            self,
            reservations=kept,
            released_at={**self.released_at, **times},
            released_by={**self.released_by, **users},
            own_owners=self.own_owners - ended,
            grant_numbers={one: n for one, n in self.grant_numbers.items() if one not in ended},
        )
        if not ended or not released or is_job_owner(owner):
            return book
        known = with_ended(self.ended, owner, released, at, is_revoked=is_revoked)
        return replace(book, ended=known)
