"""Quarantines of one node: the store has them first, and the book while the store is away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from canhazgpu.errors import NodeStateError, error_text
from canhazgpu.ledger.journal_entries import QUARANTINE, UNQUARANTINE, JournalEntry
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.book_transaction import BookTransaction
from canhazgpu.ledger.local.store_access import StoreAccess
from canhazgpu.ledger.port import Ledger
from canhazgpu.logfmt import log_line


class BookQuarantines:
    """The quarantines as one process of a node sets and lifts them."""

    def __init__(
        self, node: str, book_file: BookFile, access: StoreAccess, log: Callable[[str], None]
    ) -> None:
        self._node = node
        self._book_file = book_file
        self._access = access
        self._log = log

    def set(self, gpu: str, reason: str, by: str) -> bool:
        """See `Ledger.quarantine`."""
        return self._store_then_book(
            lambda store: store.quarantine(self._node, gpu, reason, by),
            JournalEntry(QUARANTINE, 0.0, gpus=(gpu,), reason=reason, by=by),
            lambda transaction: gpu not in transaction.book.quarantines,
        )

    def lift(self, gpu: str, by: str) -> bool:
        """See `Ledger.unquarantine`."""
        return self._store_then_book(
            lambda store: store.unquarantine(self._node, gpu, by),
            JournalEntry(UNQUARANTINE, 0.0, gpus=(gpu,), by=by),
            lambda transaction: gpu in transaction.book.quarantines,
        )

    def _store_then_book(
        self,
        ask: Callable[[Ledger], bool],
        entry: JournalEntry,
        changes: Callable[[BookTransaction], bool],
    ) -> bool:
        def with_store(store: Ledger) -> bool:
            changed = ask(store)
            self._access.just_read = None
            try:
                with self._book_file.open() as transaction:
                    transaction.apply(replace(entry, at=transaction.now))
            except NodeStateError as exc:
                # The next reconciliation reads it from the store.
                self._log(log_line("no-book", node=self._node, reason=error_text(exc)))
            return changed

        def with_book() -> bool:
            with self._book_file.open() as transaction:
                if not changes(transaction):
                    return False
                transaction.apply_and_journal(replace(entry, at=transaction.now))
                return True

        return self._access.ask(with_store, with_book)
