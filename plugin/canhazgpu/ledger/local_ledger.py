"""The ledger of one node without the store: what its hooks need, from the node's own book."""

from __future__ import annotations

from collections.abc import Sequence

from canhazgpu.errors import StoreError
from canhazgpu.ledger.entries import GRANT, QUARANTINE, RELEASE, UNQUARANTINE, Entry
from canhazgpu.ledger.grant_rules import grant_count, grant_given
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import Blocked, Claim, Granted, NodeView, Short
from canhazgpu.node.book_file import BookFile, Page

ALONE = "granted by the node alone"


class LocalLedger:
    """The operations of `Ledger` that a node can do alone, on itself; journaled for the store.

    Raises `NodeStateError` where the book cannot be kept: then nothing can be promised.
    """

    def __init__(self, node: str, book_file: BookFile) -> None:
        self._node = node
        self._book_file = book_file

    def reserve_count(self, claim: Claim, count: int, observation: Observation) -> Granted | Short:
        """See `Ledger.reserve_count`."""
        with self._book_file.open() as page:
            answer = grant_count(page.book, claim, count, observation, page.now)
            if isinstance(answer, Granted):
                self._grant(page, claim, answer)
            return answer

    def reserve_given(
        self, claim: Claim, gpus: Sequence[str], observation: Observation
    ) -> Granted | Blocked:
        """See `Ledger.reserve_given`."""
        with self._book_file.open() as page:
            answer = grant_given(page.book, claim, gpus, observation, page.now)
            if isinstance(answer, Granted):
                self._grant(page, claim, answer)
            return answer

    def release(
        self, node: str, owner: str, reason: str, gpus: Sequence[str] = (), by: str = ""
    ) -> list[str]:
        """See `Ledger.release`.

        Journaled even where the book knows of nothing: an operation of the owner, whose answer
        was lost, may have come about in the store.
        """
        self._require_own(node)
        with self._book_file.open() as page:
            held = page.book.held_by(owner)
            gone = [gpu for gpu in held if not gpus or gpu in gpus]
            page.do(Entry(RELEASE, page.now, owner, tuple(gpus), reason=reason, by=by))
            return gone

    def renew(self, node: str, owner: str) -> list[str]:
        """Return what the owner holds; signs of life are the store's alone."""
        self._require_own(node)
        with self._book_file.open() as page:
            return page.book.held_by(owner)

    def quarantine(self, node: str, gpu: str, reason: str, by: str) -> bool:
        """See `Ledger.quarantine`."""
        self._require_own(node)
        with self._book_file.open() as page:
            if gpu in page.book.quarantines:
                return False
            page.do(Entry(QUARANTINE, page.now, gpus=(gpu,), reason=reason, by=by))
            return True

    def unquarantine(self, node: str, gpu: str, by: str) -> bool:
        """See `Ledger.unquarantine`."""
        self._require_own(node)
        with self._book_file.open() as page:
            if gpu not in page.book.quarantines:
                return False
            page.do(Entry(UNQUARANTINE, page.now, gpus=(gpu,), by=by))
            return True

    def look(self) -> NodeView:
        """Return what the book says of the node."""
        with self._book_file.open() as page:
            book = page.book
            return NodeView(
                self._node,
                page.now,
                None,
                None,
                book.reservations,
                book.released_at,
                book.quarantines,
            )

    @staticmethod
    def _grant(page: Page, claim: Claim, answer: Granted) -> None:
        # A repeated one too: what the store was asked before it went is not known.
        held = dict.fromkeys((*page.book.held_by(claim.owner), *answer.gpus))
        page.do(Entry(GRANT, page.now, claim.owner, tuple(held), claim, ALONE))

    def _require_own(self, node: str) -> None:
        if node != self._node:
            raise StoreError(f"nothing is known of {node} without the store")
