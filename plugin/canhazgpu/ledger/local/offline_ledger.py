"""The ledger of one node without the store: decides from the node's book."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from canhazgpu.errors import StoreError
from canhazgpu.ledger.journal_entries import GRANT, QUARANTINE, RELEASE, UNQUARANTINE, JournalEntry
from canhazgpu.ledger.local.book_file import BookFile, BookTransaction
from canhazgpu.ledger.local.grant_rules import grant_count, grant_given
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import BlockedGpu, Claim, GrantedGpus, NodeView, TooFewGpus

OFFLINE_REASON = "granted by the node alone"


class OfflineLedger:
    """The operations of `Ledger` that a node can do for itself; it journals them for the store.

    Raises `NodeStateError` if the book cannot be read or written: then nothing is granted.
    """

    def __init__(self, node: str, book_file: BookFile) -> None:
        self._node = node
        self._book_file = book_file

    def reserve_count(
        self,
        claim: Claim,
        count: int,
        observation: Observation,
        candidates: Collection[str] | None = None,
    ) -> GrantedGpus | TooFewGpus:
        """See `Ledger.reserve_count`, and `GrantOptions` for the candidates."""
        with self._book_file.open() as transaction:
            book, now = transaction.book, transaction.now
            answer = grant_count(book, claim, count, observation, now, candidates=candidates)
            if isinstance(answer, GrantedGpus):
                self._grant(transaction, claim, answer)
            return answer

    def reserve_given(
        self, claim: Claim, gpus: Sequence[str], observation: Observation
    ) -> GrantedGpus | BlockedGpu:
        """See `Ledger.reserve_given`."""
        with self._book_file.open() as transaction:
            answer = grant_given(transaction.book, claim, gpus, observation, transaction.now)
            if isinstance(answer, GrantedGpus):
                self._grant(transaction, claim, answer)
            return answer

    def release(
        self, node: str, owner: str, reason: str, gpus: Sequence[str] = (), by: str = ""
    ) -> list[str]:
        """See `Ledger.release`.

        The release is journaled even if the owner holds nothing in the book: an earlier grant may
        be in the store although its answer was lost.
        """
        self._require_this_node(node)
        with self._book_file.open() as transaction:
            held = transaction.book.gpus_of(owner)
            released = [gpu for gpu in held if not gpus or gpu in gpus]
            transaction.apply_and_journal(
                JournalEntry(RELEASE, transaction.now, owner, tuple(gpus), reason=reason, by=by)
            )
            return released

    def renew(self, node: str, owner: str) -> list[str]:
        """Return the GPUs that the owner holds; a heartbeat is recorded in the store only."""
        self._require_this_node(node)
        with self._book_file.open() as transaction:
            return transaction.book.gpus_of(owner)

    def quarantine(self, node: str, gpu: str, reason: str, by: str) -> bool:
        """See `Ledger.quarantine`."""
        self._require_this_node(node)
        with self._book_file.open() as transaction:
            if gpu in transaction.book.quarantines:
                return False
            transaction.apply_and_journal(
                JournalEntry(QUARANTINE, transaction.now, gpus=(gpu,), reason=reason, by=by)
            )
            return True

    def unquarantine(self, node: str, gpu: str, by: str) -> bool:
        """See `Ledger.unquarantine`."""
        self._require_this_node(node)
        with self._book_file.open() as transaction:
            if gpu not in transaction.book.quarantines:
                return False
            transaction.apply_and_journal(
                JournalEntry(UNQUARANTINE, transaction.now, gpus=(gpu,), by=by)
            )
            return True

    def read_nodes(self) -> NodeView:
        """Return the view of this node from the book."""
        with self._book_file.open() as transaction:
            book = transaction.book
            return NodeView(
                self._node,
                transaction.now,
                None,
                None,
                book.reservations,
                book.released_at,
                book.quarantines,
            )

    @staticmethod
    def _grant(transaction: BookTransaction, claim: Claim, answer: GrantedGpus) -> None:
        # A repeated grant, too: it is not known whether the store has the first one.
        held = dict.fromkeys((*transaction.book.gpus_of(claim.owner), *answer.gpus))
        transaction.apply_and_journal(
            JournalEntry(GRANT, transaction.now, claim.owner, tuple(held), claim, OFFLINE_REASON)
        )

    def _require_this_node(self, node: str) -> None:
        if node != self._node:
            raise StoreError(f"nothing is known of {node} without the store")
