"""The steps by which the node's book grants GPUs: open, commit or cancel; pure.

A grant is opened under the book's lock as an intent, is confirmed by the store and looked at a
second time without the lock, and is committed under the lock. Every process that takes the lock
first ends the intents whose time is over or whose writer is dead. So none holds a GPU for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.co_holders import add_holder, holder_of
from canhazgpu.ledger.grant_answers import CommitRefusal
from canhazgpu.ledger.journal_entries import EXTEND, GRANT, RELEASE, JournalEntry
from canhazgpu.ledger.local.book.book import Book
from canhazgpu.ledger.local.book.intent import Intent
from canhazgpu.ledger.release_reasons import EXPIRED, NOT_COMMITTED
from canhazgpu.ledger.values import Reservation
from canhazgpu.node.process_id import ProcessId


@dataclass(frozen=True, slots=True)
class CommitFacts:
    """What decides a commit, read while the book's lock is held.

    `uptime_s` is the node's uptime. `is_fenced` says that the owner's attempt has ended, and
    `peer_lives` that the process that asked for the grant still waits for it.
    """

    uptime_s: float
    is_fenced: bool
    peer_lives: bool


def with_open_intents(book: Book, owner: str = "") -> Book:
    """Return the book as it would be if the intents of all others were committed.

    Nobody may be granted what somebody else is about to get.
    """
    held: dict[str, Reservation] = dict(book.reservations)
    for intent in book.intents:
        if intent.claim.owner != owner:
            for one in intent.reservations():
                held = add_holder(held, one)
    owners = {one.claim.owner for one in book.intents}
    return replace(book, reservations=held, own_owners=book.own_owners | owners)


def with_intent(book: Book, intent: Intent) -> Book:
    """Return the book with the intent opened."""
    return replace(book, intents=(*book.intents, intent))


def opened_intent(book: Book, intent: Intent) -> Intent | None:
    """Return the intent as the book has it, None if it was cancelled; its time may differ."""
    return next((one for one in book.intents if replace(one, at=intent.at) == intent), None)


def commit_refusal(
    opened: Intent | None, intent: Intent, facts: CommitFacts
) -> CommitRefusal | None:
    """Return why the intent may not be committed, None if it may.

    `opened` is the intent as the book has it now.
    """
    if facts.is_fenced:
        return CommitRefusal.FENCED
    if not facts.peer_lives:
        return CommitRefusal.PEER_GONE
    if facts.uptime_s >= intent.deadline_s:
        return CommitRefusal.LATE
    if opened is None:
        return CommitRefusal.CANCELLED
    return None


def commit_entry(book: Book, intent: Intent, reason: str = "") -> JournalEntry:
    """Return the entry that commits the intent.

    Its owner holds the intent's GPUs, and what it held before.
    """
    held = dict.fromkeys((*book.gpus_of(intent.claim.owner), *intent.gpus))
    return JournalEntry(
        GRANT,
        intent.at,
        intent.claim.owner,
        tuple(held),
        intent.claim,
        reason,
        expires_at=intent.expires_at,
        grant=intent.number,
    )


def cancel_entry(intent: Intent, at: float, reason: str = NOT_COMMITTED) -> JournalEntry:
    """Return the entry that ends the intent, whether the store has made the grant or not.

    After it the store refuses the grant's number.
    """
    return JournalEntry(RELEASE, at, intent.claim.owner, reason=reason, grant=intent.number)


def intents_over(
    book: Book, uptime_s: float, is_alive: Callable[[ProcessId], bool]
) -> tuple[Intent, ...]:
    """Return the intents that can no longer be committed: too late, or their writer is dead."""
    return tuple(
        one for one in book.intents if uptime_s >= one.deadline_s or not is_alive(one.writer)
    )


def settled_through(book: Book, last_number: int) -> int:
    """Return the number up to which no intent is open; `last_number` is the last one given."""
    return min((one.number - 1 for one in book.intents), default=last_number)


def expiry_entries(book: Book, now: float) -> tuple[JournalEntry, ...]:
    """Return the entries that release the node's own reservations that have expired.

    `now` is in seconds since the epoch by the store's clock.
    """
    expired: dict[str, list[Reservation]] = {}
    for one in book.own_expired(now):
        expired.setdefault(one.claim.owner, []).append(one)
    entries = []
    for owner, held in expired.items():
        gpus = {one.gpu for one in held}
        is_all = gpus.issuperset(book.gpus_of(owner))
        entries.append(
            JournalEntry(
                RELEASE,
                max(one.expires_at or 0.0 for one in held),
                owner,
                () if is_all else tuple(sorted(gpus)),
                reason=EXPIRED,
                grant=book.grant_numbers.get(owner),
            )
        )
    return tuple(entries)


def extension_entries(
    book: Book, owner: str, duration_s: float, gpus: Collection[str], now: float
) -> tuple[JournalEntry, ...]:
    """Return the entries that move the ends of the owner's timed reservations by `duration_s`.

    Only those of `gpus`, unless it is empty. What the book has from the store alone takes no GPU
    from anybody by it.
    """
    found = [
        one
        for held in book.reservations.values()
        if (one := holder_of(held, owner)) and (not gpus or one.gpu in gpus)
    ]
    return tuple(
        extension_entry(book, replace(one, expires_at=one.expires_at + duration_s), now)
        for one in found
        if one.expires_at is not None
    )


def extension_entry(book: Book, one: Reservation, now: float) -> JournalEntry:
    """Return the entry by which this reservation lasts until its `expires_at`."""
    owner = one.claim.owner
    return JournalEntry(
        EXTEND,
        now,
        owner,
        (one.gpu,),
        one.claim,
        expires_at=one.expires_at,
        yields=owner not in book.own_owners,
        grant=book.grant_numbers.get(owner),
    )


def release_entries(
    book: Book,
    entry: JournalEntry,
    seen_number: int | None,
) -> tuple[JournalEntry, ...]:
    """Return the entries that release the owner's GPUs and cancel its open intents.

    `entry` is the release. `seen_number` is the grant that the release is meant for: that of the
    owner when the release was decided. None means whatever the owner holds. A later grant of the
    same owner stays.
    """
    owner, number = entry.owner, book.grant_numbers.get(entry.owner)
    if seen_number is not None and number is not None and number != seen_number:
        return ()
    cancelled = tuple(
        cancel_entry(one, entry.at, entry.reason)
        for one in book.intents
        if one.claim.owner == owner and not entry.gpus
    )
    if cancelled and not book.gpus_of(owner):
        return cancelled
    return (*cancelled, replace(entry, grant=number))
