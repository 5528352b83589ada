"""The node's book and journal: two files in the state directory, under one lock.

An entry counts once it is in the journal. The book file names the last entry that it contains; a
reader of the book applies the later entries of the journal. So a crash between the two writes
loses nothing and applies nothing twice. Under the lock nothing but file operations is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from canhazgpu.errors import BookUnknownError, NodeStateError
from canhazgpu.ledger.local.book.book import Book
from canhazgpu.ledger.local.book.book_clock import BookClock
from canhazgpu.ledger.local.book.book_transaction import BookTransaction
from canhazgpu.ledger.local.book.grant_steps import with_open_intents
from canhazgpu.ledger.local.book.journal import JOURNAL_FILE, Journal, PendingEntries
from canhazgpu.ledger.local.book.outlasting_records import (
    NOTHING_OUTLASTS,
    OutlastingRecords,
    digest,
    outlasting_from_bytes,
    outlasting_records,
    outlasting_to_bytes,
    repeated_entries,
)
from canhazgpu.ledger.local.book.published_book import (
    PublishedBook,
    unheard_releases,
    write_published,
)
from canhazgpu.ledger.local.book.rebuilt_book import book_from_records
from canhazgpu.ledger.local.book.saved_book import (
    NewerFormError,
    SavedBook,
    saved_from_bytes,
    saved_to_bytes,
)
from canhazgpu.ledger.local.book.served_boot import ServedBoot
from canhazgpu.ledger.local.jobs.job_record import JobRecord
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import read_outage
from canhazgpu.ledger.local.runs.run_files import RunFiles
from canhazgpu.ledger.local.runs.run_record import RunRecord
from canhazgpu.ledger.values import RECORD_ERRORS
from canhazgpu.logfmt import log_line
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.processes import is_alive
from canhazgpu.node.state_files import (
    file_lock,
    make_directory,
    read_if_owned,
    read_if_trusted,
    remove_durably,
    write_atomically,
    write_durably,
)


class BookFile:
    """The book of one node; every method raises `NodeStateError`.

    One that was lost is `BookUnknownError`: nobody knows who holds the node's GPUs until `rebuild`.
    """

    def __init__(
        self,
        state_dir: Path,
        node: str,
        boot_id: str | None,
        records: JobRecords,
        log: Callable[[str], None],
        is_alive: Callable[[ProcessId], bool] = is_alive,
        served: ServedBoot | None = None,
    ) -> None:
        """Take the node; `log` gets a line for the administrator if a file cannot be read.

        `served` tells whether a book that is missing was lost; without it, it was not, and
        nothing of it outlasts a reboot.
        """
        self.directory = state_dir
        self._path = state_dir / "book.json"
        self._lock = state_dir / ".book.lock"
        self._journal = Journal(state_dir / JOURNAL_FILE, node)
        self._node = node
        self._boot_id = boot_id
        self._records = records
        self._log = log
        self._is_alive = is_alive
        self._served = served
        self._outlasting_path = None if served is None else served.kept_path
        self._outlasting = NOTHING_OUTLASTS
        self.rebuild_obstacle = ""
        """Why a lost book could not be rebuilt; it is part of the errors that follow."""

    @property
    def boot_id(self) -> str | None:
        """The node's boot, None where it is not known."""
        return self._boot_id

    @contextmanager
    def open(self) -> Iterator[BookTransaction]:
        """Lock and read the book; write it at the end if the block changed it."""
        with self._locked():
            transaction, saved = self._read()
            if not saved.is_of_boot:
                self._repeat_unheard(transaction)
                # Which entries come after, their times tell: see `BookClock`.
                self._write(transaction, saved.kept)
            read = _content(transaction)
            transaction.settle(self._is_alive)
            yield transaction
            # Entries count once they are in the journal. If the block fails, the book file lacks
            # them, and the next reader applies them.
            kept = self._keep_outlasting(transaction, saved.kept)
            if not saved.is_of_boot or read != _content(transaction):
                self._write(transaction, kept)
                self._publish(transaction)
            elif kept != saved.kept:
                # Nothing of the book is at stake: it says what was written, and may say it later.
                with suppress(OSError):
                    self._write(transaction, kept)

    def publish(self) -> None:
        """Write again what everybody may read, as the outage has changed; never raises."""
        with suppress(OSError, NodeStateError), self.open() as transaction:
            self._publish(transaction)

    def lost_book_journal(self) -> PendingEntries:
        """Return what the store has not heard yet, where the book is lost."""
        with self._locked():
            return self._read_journal()

    def rebuild(self, book: Book, clock_offset_s: float) -> bool:
        """Begin again with this book and a new journal, unless somebody has; return whether so.

        The store has all that was in the journal. The numbers of the old one are not known.
        """
        with self._locked():
            try:
                self._read_file()
                return False
            except BookUnknownError:
                self._journal.remove()
            pending = self._read_journal()
            rebuilt = BookTransaction(self._journal, book, pending, BookClock(clock_offset_s))
            self._write(rebuilt, self._keep_outlasting(rebuilt, ""))
            self._publish(rebuilt)
            return True

    def running_records(self) -> list[JobRecord]:
        """Return the records of the attempts that no epilog has ended yet."""
        return self._records.running()

    def living_runs(self) -> list[RunRecord]:
        """Return the records of people's runs whose commands live."""
        runs = RunFiles(self._path.parent).read(self._boot_id)
        return [one for one in runs if self._is_alive(one.command)]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            make_directory(self._path.parent)
            with file_lock(self._lock):
                yield
        except OSError as exc:
            why = exc.strerror or str(exc)
            raise NodeStateError(f"cannot keep the node's book {self._path}: {why}") from exc
        if self._served is not None:
            self._served.note()

    def _write(self, transaction: BookTransaction, kept: str) -> None:
        pending = transaction.pending
        saved = SavedBook(
            transaction.book, pending.token, pending.last, transaction.clock, kept=kept
        )
        write_atomically(self._path, saved_to_bytes(saved, self._node, self._boot_id))

    def _keep_outlasting(self, transaction: BookTransaction, kept: str) -> str:
        """Write what outlasts a reboot if it is not what has the digest `kept`; return its digest.

        What cannot be written is tried again by who opens the book next, and told of once.
        Before the book is written: who is killed in between leaves the next reader the difference.
        """
        path = self._outlasting_path
        if path is None:
            return ""
        pending, clock = transaction.pending.entries, transaction.clock
        content = outlasting_to_bytes(
            outlasting_records(transaction.book, pending, clock), self._node
        )
        # Who was killed before writing the book has left another file, or this one.
        if _size(path) == len(content) and (digest(content) == kept or _holds(path, content)):
            return digest(content)
        try:
            if content:
                # The node may lose power now.
                write_durably(path, content)
            else:
                remove_durably(path)
            return digest(content)
        except OSError as exc:
            # An old one would give GPUs to who has left.
            with suppress(OSError):
                path.unlink(missing_ok=True)
            failed = f"not kept: {digest(content)}" if content else ""
            if failed != kept:
                self._log_outlasting("records-not-kept", exc.strerror or str(exc))
            return failed

    def _read_outlasting(self) -> OutlastingRecords:
        path = self._outlasting_path
        try:
            content = None if path is None else read_if_trusted(path)
            if content is None:
                return NOTHING_OUTLASTS
            return outlasting_from_bytes(content, self._node)
        except (OSError, *RECORD_ERRORS, AttributeError) as exc:
            self._log_outlasting("records-unreadable", str(exc))
            return NOTHING_OUTLASTS

    def _repeat_unheard(self, transaction: BookTransaction) -> None:
        """Journal what the store had not heard before this boot, once.

        Their times are by the store's clock, and are not corrected with this boot's.
        """
        outlasting, self._outlasting = self._outlasting, NOTHING_OUTLASTS
        if not transaction.pending.is_new:
            return
        transaction.apply_and_journal(*repeated_entries(outlasting))
        transaction.book = transaction.book.without_expired(transaction.now)
        last = transaction.pending.last
        transaction.clock = replace(transaction.clock, estimated_after=last)

    def _log_outlasting(self, event: str, reason: str) -> None:
        path = str(self._outlasting_path)
        self._log(log_line(event, node=self._node, path=path, reason=reason))

    def _publish(self, transaction: BookTransaction) -> None:
        book = transaction.book
        # By a clock that is an estimate nobody's time is over for certain.
        entries = () if transaction.clock.is_estimated else transaction.pending.entries
        outage = read_outage(self._path.parent)
        since, why = (outage.since, outage.why) if outage is not None else (None, "")
        # A store that is away does not decide between others and what a hook is about to grant.
        shown = book if since is None else with_open_intents(book)
        released = unheard_releases(book, entries)
        published = PublishedBook(self._node, self._boot_id, shown, since, why, released)
        write_published(self._path.parent, published)

    def _read(self) -> tuple[BookTransaction, SavedBook]:
        """Return the book, and what its file holds."""
        pending = self._read_journal()
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
        clock = saved.clock
        if not saved.is_of_boot:
            clock = replace(clock, estimated_after=pending.last)
        transaction = BookTransaction(self._journal, book, pending, clock)
        transaction.book = transaction.book.without_earlier_boots(self._boot_id).without_expired(
            transaction.now
        )
        return transaction, saved

    def _read_journal(self) -> PendingEntries:
        pending = self._journal.read()
        if pending.damage:
            self._log(log_line("journal-damaged", node=self._node, reason=pending.damage))
        return pending

    def _read_file(self) -> SavedBook:
        """Return what the book's file holds, or what it would hold if there was one."""
        content = read_if_owned(self._path)
        wall_s = time.time() - uptime_s()
        if content is None:
            if self._served is not None and self._served.is_noted():
                raise self._unknown("is missing, and was there in this boot")
            self._outlasting = outlasting = self._read_outlasting()
            book = book_from_records(self._records.running(), self.living_runs(), outlasting)
            return SavedBook(book, "", 0, BookClock(wall_s, 0), is_of_boot=False)
        try:
            return saved_from_bytes(content, self._node, self._boot_id, wall_s)
        except NewerFormError as exc:
            raise NodeStateError(
                f"the node's book {self._path} {exc}",
                next_step="install that release again; or end the node's jobs and remove the file",
            ) from exc
        except (*RECORD_ERRORS, AttributeError) as exc:
            raise self._unknown(f"cannot be read ({exc})") from exc

    def _unknown(self, why: str) -> BookUnknownError:
        but = f"; {self.rebuild_obstacle}" if self.rebuild_obstacle else ""
        return BookUnknownError(
            f"the node's book {self._path} {why}: it is not known who holds the GPUs of"
            f" {self._node}, and nobody is granted any until store and scheduler have told{but}"
        )


def _size(path: Path) -> int:
    """Return the size of the file, 0 without one, or where that is not known."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _holds(path: Path, content: bytes) -> bool:
    """Return whether the file has this content, as far as that can be read."""
    with suppress(OSError):
        return (read_if_trusted(path) or b"") == content
    return False


def _content(transaction: BookTransaction) -> tuple[Book, PendingEntries, BookClock]:
    return transaction.book, transaction.pending, transaction.clock
