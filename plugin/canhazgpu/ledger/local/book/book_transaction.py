"""The node's book while its lock is held: the changes that one process makes in one go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from canhazgpu.ledger.journal_entries import NOTE_KINDS, JournalEntry
from canhazgpu.ledger.local.book.book import Book
from canhazgpu.ledger.local.book.book_and_store import updated_from_view
from canhazgpu.ledger.local.book.book_clock import BookClock, corrected_book, corrected_entries
from canhazgpu.ledger.local.book.grant_steps import (
    cancel_entry,
    expiry_entries,
    intents_over,
    with_intent,
)
from canhazgpu.ledger.local.book.intent import Intent
from canhazgpu.ledger.local.book.journal import Journal, PendingEntries
from canhazgpu.ledger.values import Claim, NodeView
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.processes import is_alive

MAX_JOURNAL_BYTES_FOR_NOTES = 2 * 2**20
"""A journal of this size takes no more notes, only entries that change the book."""


class BookTransaction:
    """The book while its lock is held; `BookFile.open` writes the changes at the end."""

    def __init__(
        self, journal: Journal, book: Book, pending: PendingEntries, clock: BookClock
    ) -> None:
        self._journal = journal
        self.uptime_s = uptime_s()
        self.pending = pending
        self.book = book
        self.clock = clock

    @property
    def now(self) -> float:
        """The node's estimate of the time by the store's clock."""
        return self.uptime_s + self.clock.offset_s

    def open_intent(
        self, claim: Claim, gpus: Sequence[str], writer: ProcessId, life_s: float
    ) -> Intent:
        """Enter an intent that its writer may commit within `life_s`, with a new number."""
        self.skip_numbers(self.pending.last + 1)
        intent = Intent(
            self.pending.last, claim, tuple(gpus), writer, self.uptime_s + life_s, self.now
        )
        self.book = with_intent(self.book, intent)
        return intent

    def skip_numbers(self, through: int) -> None:
        """Give no number up to this one any more."""
        if through > self.pending.last:
            self.pending = replace(self.pending, last=through)

    def settle(self, is_writer_alive: Callable[[ProcessId], bool] = is_alive) -> None:
        """End what is over, intents and reservations; the store hears of it by the journal."""
        for intent in intents_over(self.book, self.uptime_s, is_writer_alive):
            self.apply_and_journal(cancel_entry(intent, self.now))
        if expired := expiry_entries(self.book, self.now):
            self.apply_and_journal(*expired)

    def apply_and_journal(self, *entries: JournalEntry) -> None:
        """Apply the entries to the book, and journal them for the store."""
        if self.pending.size > MAX_JOURNAL_BYTES_FOR_NOTES:
            entries = tuple(one for one in entries if one.kind not in NOTE_KINDS)
        if entries:
            self.pending = self._journal.append(self.pending, entries)
        for entry in entries:
            self.book = self.book.with_entry(entry)

    def apply(self, entry: JournalEntry) -> None:
        """Apply the entry to the book only: the store has it already."""
        self.book = self.book.with_entry(entry)

    def set_clock(self, view: NodeView, uptime: float) -> None:
        """Update the clock from a view that was read at `uptime`.

        What was granted by an estimate of it gets its times corrected.
        """
        was_estimated = self.clock.is_estimated
        self.clock = self.clock.with_offset(view.read_at - uptime, self.pending.last)
        if was_estimated and self.clock.correction is not None:
            self.book = corrected_book(self.book, self.clock.correction, self.now)

    def refresh(self, view: NodeView, uptime: float) -> None:
        """Update the book and the clock from a view that was read at `uptime`."""
        self.set_clock(view, uptime)
        self.book = updated_from_view(self.book, view)

    def undelivered(self) -> PendingEntries | None:
        """Return the pending entries with the times that the store is to record.

        None where these are by an estimate: `set_clock` comes before the entries are delivered.
        """
        if self.clock.is_estimated and self.pending.entries:
            return None
        entries = corrected_entries(self.pending.entries, self.clock.correction)
        return replace(self.pending, entries=entries)

    def drop_recorded(self, through: int) -> None:
        """Drop the pending entries up to this number: the store has them."""
        if any(one.number <= through for one in self.pending.entries):
            self.pending = self._journal.drop(self.pending, through)
