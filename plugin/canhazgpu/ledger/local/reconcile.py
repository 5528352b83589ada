"""Reconcile store and book: deliver the journal, and restore what the store has lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from canhazgpu.errors import BookUnknownError
from canhazgpu.ledger.journal_entries import (
    EXTEND,
    GRANT,
    RELEASE,
    NumberedEntry,
    OverruledReservation,
)
from canhazgpu.ledger.local.book.book import is_job_owner
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.book_transaction import BookTransaction
from canhazgpu.ledger.local.book.disagreement import (
    Disagreement,
    disagreement,
    find_release,
    release_as_recorded,
    release_of_gone,
    release_of_revived,
    restored_timed,
    restoring_entries,
)
from canhazgpu.ledger.local.book.grant_steps import extension_entry
from canhazgpu.ledger.local.book.journal import PendingEntries
from canhazgpu.ledger.local.notices import Notices
from canhazgpu.ledger.local.rebuild import BookRebuilding, NodeJobs
from canhazgpu.ledger.notice import Notice
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.release_reasons import OVERRULED
from canhazgpu.ledger.values import Claim, Event, NodeView, Reservation
from canhazgpu.logfmt import log_line
from canhazgpu.node.boot_clock import uptime_s

MAX_BATCH = 200
"""Entries per round trip; after a long outage several round trips are needed."""


class Reconciler:
    """Reconciles the book of one node with the store; every step may be repeated."""

    def __init__(
        self,
        node: str,
        book_file: BookFile,
        log: Callable[[str], None],
        is_gone: Callable[[Claim], bool],
        jobs_here: NodeJobs | None = None,
    ) -> None:
        """Take the node's parts; `is_gone` returns whether a claim's owner has ended.

        Without `jobs_here` a book that was lost is not rebuilt.
        """
        self._node = node
        self._book_file = book_file
        self._log = log
        self._is_gone = is_gone
        self._notices = Notices(book_file.directory)
        self._rebuilding = None if jobs_here is None else BookRebuilding(book_file, jobs_here, log)

    def reconcile(self, store: Ledger) -> NodeView | None:
        """Deliver the journal, read the node from the store, and restore lost reservations.

        A book that was lost is rebuilt first. Returns the view that was read, None if restoring
        made it outdated. Usually this is one round trip. Raises `StoreError` and `NodeStateError`.
        """
        try:
            self.deliver_journal(store)
        except BookUnknownError:
            if self._rebuilding is None:
                raise
            self._rebuild(store, self._rebuilding)
        (view,) = store.read_nodes([self._node])
        read = uptime_s()
        with self._book_file.open() as transaction:
            found = disagreement(transaction.book, view)
            if found.is_none:
                transaction.refresh(view, read)
                return view
        # Outside the lock: this may ask Slurm, and reads the history.
        gone = {owner for owner, held in found.lost.items() if self._is_gone(held[0].claim)}
        events = _history_of(store, self._node, found)
        with self._book_file.open() as transaction:
            transaction.set_clock(view, read)
            self._restore_own(transaction, found, gone, events)
            # Now: the store may have given to others what an own owner does not hold any more.
            transaction.refresh(view, read)
            self._restore_timed(transaction, found.timed, view, events)
            self._extend_again(transaction, found.extensions)
            for entry in release_of_revived(found.revived, transaction.now):
                self._log(log_line("dropped", node=self._node, owner=entry.owner))
                transaction.apply_and_journal(entry)
        self.deliver_journal(store)
        return None

    def _rebuild(self, store: Ledger, rebuilding: BookRebuilding) -> None:
        pending = self._book_file.lost_book_journal()
        for _, overruled in self._recorded(store, pending):
            self.log_overruled(overruled)
        (view,) = store.read_nodes([self._node])
        rebuilding.rebuild(view, uptime_s())

    def deliverable(self, entries: Sequence[NumberedEntry]) -> tuple[NumberedEntry, ...]:
        """Return all pending entries as the store is to record them."""
        return tuple(_yield_released_grants(entries))

    def log_overruled(self, overruled: Sequence[OverruledReservation]) -> None:
        """Log the reservations that the node's grants took from others; have these told."""
        for one in overruled:
            self._log(overruled_text(one, self._node))
            notice = Notice(f"GPU {one.gpu}", time.time(), "", OVERRULED)
            self._notices.add(one.before.claim.uid, notice)

    def deliver_journal(self, store: Ledger, pending: PendingEntries | None = None) -> None:
        """Send all entries of the journal to the store; `pending` is what was `undelivered`."""
        if pending is None:
            pending = self._undelivered(store)
        for through, overruled in self._recorded(store, pending):
            with self._book_file.open() as transaction:
                transaction.drop_recorded(through)
            self.log_overruled(overruled)

    def _undelivered(self, store: Ledger) -> PendingEntries:
        """Return the pending entries; a clock that is an estimate is set before."""
        with self._book_file.open() as transaction:
            if (pending := transaction.undelivered()) is not None:
                return pending
        (view,) = store.read_nodes([self._node])
        read = uptime_s()
        with self._book_file.open() as transaction:
            transaction.set_clock(view, read)
            pending = transaction.undelivered()
        assert pending is not None  # noqa: S101 - the clock is set
        return pending

    def _recorded(
        self, store: Ledger, pending: PendingEntries
    ) -> Iterator[tuple[int, list[OverruledReservation]]]:
        """Have the store record the entries; yield each batch's last number, and its answer."""
        entries = self.deliverable(pending.entries)
        for first in range(0, len(entries), MAX_BATCH):
            some = entries[first : first + MAX_BATCH]
            yield some[-1].number, store.record_entries(self._node, pending.token, some)

    def _restore_own(
        self,
        transaction: BookTransaction,
        found: Disagreement,
        gone: Collection[str],
        events: Sequence[Event],
    ) -> None:
        for owner, lost in found.lost.items():
            gpus = transaction.book.gpus_of(owner)
            # It may have been released since the book was read.
            if not gpus:
                continue
            released = {} if is_job_owner(owner) else _released(events, lost, is_own=True)
            if owner in gone:
                entry = release_of_gone(transaction.book, owner, transaction.now)
                transaction.apply_and_journal(entry)
                self._log(log_line("dropped", node=self._node, owner=owner, gpus=gpus))
                continue
            for one, event in released.items():
                transaction.apply_and_journal(release_as_recorded(transaction.book, one, event))
            if len(released) < len(lost):
                now = transaction.now
                transaction.apply_and_journal(*restoring_entries(transaction.book, owner, now))
                kept = transaction.book.gpus_of(owner)
                self._log(log_line("restored", node=self._node, owner=owner, gpus=kept))

    def _extend_again(
        self, transaction: BookTransaction, extensions: Sequence[Reservation]
    ) -> None:
        for one in extensions:
            book = transaction.book
            if one.gpu in book.gpus_of(one.claim.owner):
                transaction.apply_and_journal(extension_entry(book, one, transaction.now))

    def _restore_timed(
        self,
        transaction: BookTransaction,
        timed: Sequence[Reservation],
        view: NodeView,
        events: Sequence[Event],
    ) -> None:
        by_owner: dict[str, list[Reservation]] = {}
        for one in timed:
            if find_release(events, one, is_own=False) is None:
                by_owner.setdefault(one.claim.owner, []).append(one)
        for owner, lost in by_owner.items():
            entries = restored_timed(transaction.book, owner, lost, view)
            transaction.apply_and_journal(*entries)
            gpus = [one.gpu for one in lost]
            self._log(log_line("restored", node=self._node, owner=owner, gpus=gpus))


def _yield_released_grants(entries: Sequence[NumberedEntry]) -> list[NumberedEntry]:
    """Set `yields` on grants that a later entry releases: an ended job takes no GPU from anybody.

    This needs all pending entries: the store gets one batch at a time.
    """
    adjusted: list[NumberedEntry] = []
    released: set[tuple[str, int | None]] = set()
    for one in reversed(entries):
        entry = one.entry
        any_grant, this_grant = (entry.owner, None), (entry.owner, entry.grant)
        if entry.kind == RELEASE and not entry.gpus:
            released.add(this_grant)
        elif entry.kind in (GRANT, EXTEND) and not released.isdisjoint({any_grant, this_grant}):
            entry = replace(entry, yields=True)
            if entry.kind == GRANT:
                # A release that names no grant is for the last one before it.
                released.discard(any_grant)
                released |= {this_grant} if entry.grant is not None else set()
        adjusted.append(NumberedEntry(one.number, entry))
    return adjusted[::-1]


def _history_of(store: Ledger, node: str, found: Disagreement) -> list[Event]:
    """Return the events since people were granted what the store lacks."""
    people = found.of_people()
    return store.history(node, min(one.granted_at for one in people)) if people else []


def _released(
    events: Sequence[Event], lost: Sequence[Reservation], *, is_own: bool
) -> dict[Reservation, Event]:
    found = ((one, find_release(events, one, is_own=is_own)) for one in lost)
    return {one: event for one, event in found if event is not None}


def overruled_text(one: OverruledReservation, node: str) -> str:
    """Return the log line for a reservation that the node's grant removed."""
    before = one.before.claim
    return log_line(
        "overruled",
        node=node,
        gpu=one.gpu,
        lost_by=before.owner,
        lost_by_user=before.user,
        kept_by=one.owner,
        kept_by_user=one.user,
        reason="the store had given away what the node has granted",
    )
