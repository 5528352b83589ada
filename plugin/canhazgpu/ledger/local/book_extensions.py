"""Extensions of timed reservations on one node: the book first, and the store by the journal."""

from __future__ import annotations

from collections.abc import Sequence

from canhazgpu.errors import LimitError
from canhazgpu.ledger.co_holders import holder_of
from canhazgpu.ledger.duration_limit import check_duration
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.grant_steps import extension_entries
from canhazgpu.ledger.local.store_access import StoreAccess
from canhazgpu.ledger.user_limits import reserve_limit_text
from canhazgpu.ledger.values import Reservation


class BookExtensions:
    """The extensions as one process of a node makes them."""

    def __init__(self, node: str, book_file: BookFile, access: StoreAccess) -> None:
        self._node = node
        self._book_file = book_file
        self._access = access

    def extend(
        self, owner: str, duration_s: float, gpus: Sequence[str], longest_s: float
    ) -> list[Reservation]:
        """See `Ledger.extend`; also raises `NodeStateError`."""
        check_duration(duration_s)
        # Only the store knows what direct mode has reserved since this process read it.
        self._access.refresh_book()
        with self._book_file.open() as transaction:
            book, now = transaction.book, transaction.now
            entries = extension_entries(book, owner, duration_s, gpus, now)
            if longest_s and any((one.expires_at or now) > now + longest_s for one in entries):
                raise LimitError(reserve_limit_text(longest_s))
            transaction.apply_and_journal(*entries)
            pending, held = transaction.undelivered(), transaction.book.reservations
        if entries:
            self._access.deliver_journal(pending)
        extended = (holder_of(held[one.gpus[0]], owner) for one in entries)
        return [one for one in extended if one is not None]
