"""Extensions of timed reservations on one node: the book first, and the store by the journal."""

from __future__ import annotations

from collections.abc import Sequence

from canhazgpu.ledger.co_holders import holder_of
from canhazgpu.ledger.duration_limit import check_duration
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.grant_steps import extension_entries
from canhazgpu.ledger.local.store_access import StoreAccess
from canhazgpu.ledger.values import Reservation


class BookExtensions:
    """The extensions as one process of a node makes them."""

    def __init__(self, node: str, book_file: BookFile, access: StoreAccess) -> None:
        self._node = node
        self._book_file = book_file
        self._access = access

    def extend(self, owner: str, duration_s: float, gpus: Sequence[str]) -> list[Reservation]:
        """See `Ledger.extend`; also raises `NodeStateError`."""
        check_duration(duration_s)
        # Only the store knows what direct mode has reserved since this process read it.
        self._access.refresh_book()
        with self._book_file.open() as transaction:
            entries = extension_entries(transaction.book, owner, duration_s, gpus, transaction.now)
            transaction.apply_and_journal(*entries)
            pending, held = transaction.pending, transaction.book.reservations
        if entries:
            self._access.deliver_journal(pending)
        extended = (holder_of(held[one.gpus[0]], owner) for one in entries)
        return [one for one in extended if one is not None]
