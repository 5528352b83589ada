"""Releases of one node: the book first, and the store by the journal.

A release is for the grant that its owner had when this process last read the node, or made it: a
later grant to the same owner stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from canhazgpu.errors import NodeStateError, error_text
from canhazgpu.ledger.journal_entries import JournalEntry
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.grant_steps import release_entries
from canhazgpu.ledger.local.store_access import StoreAccess
from canhazgpu.ledger.values import NodeView
from canhazgpu.logfmt import log_line


class BookReleases:
    """The releases of one process of a node.

    `released` are by owner the GPUs released so far.
    """

    def __init__(
        self, node: str, book_file: BookFile, access: StoreAccess, log: Callable[[str], None]
    ) -> None:
        self._node = node
        self._book_file = book_file
        self._access = access
        self._log = log
        self._seen_numbers: Mapping[str, int] = {}
        self._seen: NodeView | None = None
        self.released: dict[str, list[str]] = {}

    def note_numbers(self, numbers: Mapping[str, int]) -> None:
        """Take the numbers of the grants, by owner, for which releases are meant from now on."""
        self._seen_numbers = dict(numbers)

    def note_view(self, view: NodeView) -> None:
        """Take what the store has of the node."""
        self._seen = view

    def release(self, entry: JournalEntry) -> list[str]:
        """Carry out a release, but its time; return the GPUs. See `Ledger.release` for errors."""
        # The first contact brings the book up to date.
        self._access.ask(lambda store: None, lambda: None)
        owner, gpus = entry.owner, entry.gpus
        try:
            with self._book_file.open() as transaction:
                held = {one for one in transaction.book.gpus_of(owner) if not gpus or one in gpus}
                entries = release_entries(
                    transaction.book,
                    replace(entry, at=transaction.now),
                    self._seen_numbers.get(owner),
                )
                transaction.apply_and_journal(*entries)
                pending = transaction.undelivered()
        except NodeStateError as exc:
            return self._release_in_store(entry, exc)
        self._access.deliver_journal(pending)
        released = sorted(held | self._only_in_store(owner, gpus)) if entries else []
        return self._noted(owner, released)

    def _only_in_store(self, owner: str, gpus: Sequence[str]) -> set[str]:
        """Return what the owner held by the last view of the store, of `gpus` if not empty."""
        held = [] if self._seen is None else self._seen.all_reservations()
        return {
            one.gpu for one in held if one.claim.owner == owner and (not gpus or one.gpu in gpus)
        }

    def _release_in_store(self, entry: JournalEntry, exc: NodeStateError) -> list[str]:
        """Release without the book, which cannot be read or written; raises without the store."""
        self._log(log_line("no-book", node=self._node, reason=error_text(exc)))

        def fail() -> list[str]:
            raise exc

        released = self._access.ask(
            lambda store: store.release(
                self._node, entry.owner, entry.reason, entry.gpus, entry.by
            ),
            fail,
        )
        return self._noted(entry.owner, released)

    def _noted(self, owner: str, gpus: list[str]) -> list[str]:
        if gpus:
            self.released.setdefault(owner, []).extend(gpus)
        return gpus
