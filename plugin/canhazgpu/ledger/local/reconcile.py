"""Reconcile store and book: deliver the journal, and restore what the store has lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from canhazgpu.errors import BookUnknownError
from canhazgpu.ledger.journal_entries import (
    GRANT,
    RELEASE,
    JournalEntry,
    NumberedEntry,
    OverruledReservation,
)
from canhazgpu.ledger.local.book.book import lost_job_reservations, lost_timed_reservations
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.book_transaction import BookTransaction
from canhazgpu.ledger.local.book.journal import PendingEntries
from canhazgpu.ledger.local.rebuild import BookRebuilding, JobsHere
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.values import Claim, NodeView, Reservation
from canhazgpu.logfmt import log_line
from canhazgpu.node.boot_clock import uptime_s

MAX_BATCH = 200
"""Entries per round trip; after a long outage several round trips are needed."""
RESTORED_REASON = "restored: the store had lost it"


class Reconciler:
    """Reconciles the book of one node with the store; every step may be repeated."""

    def __init__(
        self,
        node: str,
        book_file: BookFile,
        log: Callable[[str], None],
        is_gone: Callable[[Claim], bool],
        jobs_here: JobsHere | None = None,
    ) -> None:
        """Take the node's parts; `is_gone` returns whether the job of a claim has ended.

        Without `jobs_here` a book that was lost is not rebuilt.
        """
        self._node = node
        self._book_file = book_file
        self._log = log
        self._is_gone = is_gone
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
            lost = lost_job_reservations(transaction.book, view)
            timed = lost_timed_reservations(transaction.book, view)
            if not lost and not timed:
                transaction.refresh(view, read)
                return view
        # Outside the lock: this may ask Slurm, and reads the history.
        ended = {owner for owner, held in lost.items() if self._is_gone(held[0].claim)}
        timed = [one for one in timed if not _was_released(store, self._node, one)]
        with self._book_file.open() as transaction:
            transaction.refresh(view, read)
            self._restore_jobs(transaction, lost, ended)
            self._restore_timed(transaction, timed, view)
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
        """Log the reservations that the node's grants removed from the store."""
        for one in overruled:
            self._log(overruled_text(one, self._node))

    def deliver_journal(self, store: Ledger, pending: PendingEntries | None = None) -> None:
        """Send all entries of the journal to the store; `pending` are those that were just read."""
        if pending is None:
            with self._book_file.open() as transaction:
                pending = transaction.pending
        for through, overruled in self._recorded(store, pending):
            with self._book_file.open() as transaction:
                transaction.drop_recorded(through)
            self.log_overruled(overruled)

    def _recorded(
        self, store: Ledger, pending: PendingEntries
    ) -> Iterator[tuple[int, list[OverruledReservation]]]:
        """Have the store record the entries; yield each batch's last number, and its answer."""
        entries = self.deliverable(pending.entries)
        for first in range(0, len(entries), MAX_BATCH):
            some = entries[first : first + MAX_BATCH]
            yield some[-1].number, store.record_entries(self._node, pending.token, some)

    def _restore_jobs(
        self,
        transaction: BookTransaction,
        lost: dict[str, tuple[Reservation, ...]],
        ended: set[str],
    ) -> None:
        for owner, held in lost.items():
            gpus = transaction.book.gpus_of(owner)
            # It may have been released since the book was read.
            if not gpus:
                continue
            if owner in ended:
                transaction.apply_and_journal(
                    JournalEntry(RELEASE, transaction.now, owner, reason="job gone")
                )
                self._log(log_line("dropped", node=self._node, owner=owner, gpus=gpus))
                continue
            one = held[0]
            transaction.apply_and_journal(
                JournalEntry(
                    GRANT,
                    one.granted_at,
                    owner,
                    tuple(gpus),
                    one.claim,
                    RESTORED_REASON,
                    grant=transaction.book.grant_numbers.get(owner),
                )
            )
            self._log(log_line("restored", node=self._node, owner=owner, gpus=gpus))

    def _restore_timed(
        self, transaction: BookTransaction, timed: Sequence[Reservation], view: NodeView
    ) -> None:
        by_owner: dict[str, list[Reservation]] = {}
        for one in timed:
            by_owner.setdefault(one.claim.owner, []).append(one)
        for owner, lost in by_owner.items():
            gpus = [one.gpu for one in lost]
            kept = [one.gpu for one in view.all_reservations() if one.claim.owner == owner]
            first = lost[0]
            transaction.apply_and_journal(
                JournalEntry(
                    GRANT,
                    first.granted_at,
                    owner,
                    (*kept, *gpus),
                    first.claim,
                    RESTORED_REASON,
                    expires_at=first.expires_at,
                    yields=True,
                )
            )
            self._log(log_line("restored", node=self._node, owner=owner, gpus=gpus))


def _yield_released_grants(entries: Sequence[NumberedEntry]) -> list[NumberedEntry]:
    """Set `yields` on grants that a later entry releases: an ended job takes no GPU from anybody.

    This needs all pending entries: the store gets one batch at a time.
    """
    adjusted: list[NumberedEntry] = []
    released: set[tuple[str, int | None]] = set()
    for one in reversed(entries):
        entry = one.entry
        meant = {(entry.owner, None), (entry.owner, entry.grant)}
        if entry.kind == RELEASE and not entry.gpus:
            released.add((entry.owner, entry.grant))
        elif entry.kind == GRANT and not released.isdisjoint(meant):
            released -= meant
            entry = replace(entry, yields=True)
        adjusted.append(NumberedEntry(one.number, entry))
    return adjusted[::-1]


def _was_released(store: Ledger, node: str, one: Reservation) -> bool:
    """Return whether the history has a release of it: then it was not lost."""
    return any(
        event.kind == RELEASE
        and event.gpu == one.gpu
        and event.claim is not None
        and event.claim.owner == one.claim.owner
        for event in store.history(node, one.granted_at)
    )


def overruled_text(one: OverruledReservation, node: str) -> str:
    """Return the log line for a reservation that a job's grant removed."""
    before = one.before.claim
    return log_line(
        "overruled",
        node=node,
        gpu=one.gpu,
        lost_by=before.owner,
        lost_by_user=before.user,
        kept_by=one.owner,
        kept_by_user=one.user,
        reason="the store had given away what a job runs on",
    )
