"""The node's book and journal: two files in the state directory, under one lock.

An entry counts once it is in the journal. The book file names the last entry that it contains; a
reader of the book applies the later entries of the journal. So a crash between the two writes
loses nothing and applies nothing twice. Under the lock nothing but file operations is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from canhazgpu.errors import NodeStateError
from canhazgpu.ledger.journal_entries import NOTE_KINDS, JournalEntry
from canhazgpu.ledger.local.book.book import Book
from canhazgpu.ledger.local.book.grant_steps import (
    cancel_entry,
    intents_over,
    with_intent,
    with_open_intents,
)
from canhazgpu.ledger.local.book.intent import Intent
from canhazgpu.ledger.local.book.journal import JOURNAL_FILE, Journal, PendingEntries
from canhazgpu.ledger.local.book.published_book import PublishedBook, write_published
from canhazgpu.ledger.local.book.saved_book import SavedBook, saved_from_bytes, saved_to_bytes
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import read_outage
from canhazgpu.ledger.values import RECORD_ERRORS, Claim, NodeView
from canhazgpu.logfmt import log_line
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.processes import is_alive
from canhazgpu.node.state_files import file_lock, make_directory, read_if_owned, write_atomically

MAX_JOURNAL_BYTES_FOR_NOTES = 2 * 2**20
"""A journal of this size takes no more notes, only entries that change the book."""


class BookTransaction:
    """The book while its lock is held; `BookFile.open` writes the changes at the end."""

    def __init__(
        self, journal: Journal, book: Book, pending: PendingEntries, clock_offset_s: float
    ) -> None:
        self._journal = journal
        self.uptime_s = uptime_s()
        self.pending = pending
        self.book = book
        self.clock_offset_s = clock_offset_s

    @property
    def now(self) -> float:
        """The node's estimate of the time by the store's clock."""
        return self.uptime_s + self.clock_offset_s

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
        """Cancel the intents that are over; the store hears of it by the journal."""
        for intent in intents_over(self.book, self.uptime_s, is_writer_alive):
            self.apply_and_journal(cancel_entry(intent, self.now))

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

    def refresh(self, view: NodeView, uptime: float) -> None:
        """Update the book and the clock offset from a view that was read at `uptime`."""
        self.clock_offset_s = view.read_at - uptime
        self.book = self.book.updated_from_view(view)

    def drop_recorded(self, through: int) -> None:
        """Drop the pending entries up to this number: the store has them."""
        if any(one.number <= through for one in self.pending.entries):
            self.pending = self._journal.drop(self.pending, through)


class BookFile:
    """The book of one node; every method raises `NodeStateError`."""

    def __init__(
        self,
        state_dir: Path,
        node: str,
        boot_id: str | None,
        records: JobRecords,
        log: Callable[[str], None],
        is_writer_alive: Callable[[ProcessId], bool] = is_alive,
    ) -> None:
        """Take the node; `log` gets a line for the administrator if a file cannot be read."""
        self._path = state_dir / "book.json"
        self._lock = state_dir / ".book.lock"
        self._journal = Journal(state_dir / JOURNAL_FILE, node)
        self._node = node
        self._boot_id = boot_id
        self._records = records
        self._log = log
        self._is_writer_alive = is_writer_alive

    @contextmanager
    def open(self) -> Iterator[BookTransaction]:
        """Lock and read the book; write it at the end if the block changed it."""
        try:
            make_directory(self._path.parent)
            with file_lock(self._lock):
                transaction = self._read()
                read = (transaction.book, transaction.pending, transaction.clock_offset_s)
                transaction.settle(self._is_writer_alive)
                yield transaction
                # Entries count once they are in the journal. If the block fails, the book file
                # lacks them, and the next reader applies them.
                if read != (transaction.book, transaction.pending, transaction.clock_offset_s):
                    self._write(transaction)
                    self._publish(transaction.book)
        except OSError as exc:
            why = exc.strerror or str(exc)
            raise NodeStateError(f"cannot keep the node's book {self._path}: {why}") from exc

    def _write(self, transaction: BookTransaction) -> None:
        pending = transaction.pending
        saved = SavedBook(transaction.book, pending.token, pending.last, transaction.clock_offset_s)
        write_atomically(self._path, saved_to_bytes(saved, self._node, self._boot_id))

    def publish(self) -> None:
        """Write again what everybody may read, as the outage has changed; never raises."""
        with suppress(OSError, NodeStateError), self.open() as transaction:
            self._publish(transaction.book)

    def _publish(self, book: Book) -> None:
        outage = read_outage(self._path.parent)
        since, why = (outage.since, outage.why) if outage is not None else (None, "")
        # A store that is away does not decide between others and what a hook is about to grant.
        shown = book if since is None else with_open_intents(book)
        published = PublishedBook(self._node, self._boot_id, shown, since, why)
        write_published(self._path.parent, published)

    def _read(self) -> BookTransaction:
        pending = self._journal.read()
        if pending.damage:
            self._log(log_line("journal-damaged", node=self._node, reason=pending.damage))
        saved = self._read_file()
        if pending.is_new and saved.token:
            # Numbers were given out before there was anything to journal.
            pending = replace(pending, token=saved.token)
        applied = saved.last if saved.token == pending.token else 0
        book = saved.book
        for one in pending.entries:
            if one.number > applied:
                book = book.with_entry(one.entry)
        pending = replace(pending, last=max(pending.last, saved.last))
        transaction = BookTransaction(self._journal, book, pending, saved.clock_offset_s)
        transaction.book = transaction.book.without_earlier_boots(self._boot_id).without_expired(
            transaction.now
        )
        return transaction

    def _read_file(self) -> SavedBook:
        """Return what the book's file holds."""
        content = read_if_owned(self._path)
        wall_s = time.time() - uptime_s()
        if content is None:
            return SavedBook(self._from_records(), "", 0, wall_s)
        try:
            return saved_from_bytes(content, self._node, self._boot_id, wall_s)
        except (*RECORD_ERRORS, AttributeError) as exc:
            reason = f"{self._path} cannot be read ({exc}): made anew from the jobs' records"
            self._log(log_line("book-damaged", node=self._node, reason=reason))
            return SavedBook(self._from_records(), "", 0, wall_s)

    def _from_records(self) -> Book:
        """Return a book made from the records of running jobs, for a book file that is lost."""
        book = Book()
        for record in self._records.running():
            claim = Claim(
                record.owner.token,
                "slurm",
                record.user,
                job_id=record.owner.job_id,
                boot_id=record.boot_id,
                share=record.share,
            )
            if record.gpus:
                book = book.with_grant(claim, [gpu.uuid for gpu in record.gpus], 0.0)
        return book
