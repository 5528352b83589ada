"""The store's ledger, checked against the node's book.

The store may have lost its data. So a GPU that a job of this node holds in the book is never
granted to another owner, even if the store grants it. A grant counts once it is in the book. If
the store grants a GPU again after it lost its data, the second grant is given back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from canhazgpu.errors import NodeStateError, error_text
from canhazgpu.ledger.co_holders import shares_with
from canhazgpu.ledger.journal_entries import GRANT, QUARANTINE, RELEASE, UNQUARANTINE, JournalEntry
from canhazgpu.ledger.local.book import with_book_jobs
from canhazgpu.ledger.local.book_file import BookFile
from canhazgpu.ledger.local.delegating_ledger import GrantCheckedLedger
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.port import JOB_GRANT_OPTIONS, GrantOptions, Ledger, Observation
from canhazgpu.ledger.release_reasons import ANOTHER_JOB_RUNS
from canhazgpu.ledger.values import (
    BlockedGpu,
    Claim,
    GrantedGpus,
    NodeView,
    QueuePosition,
    Reservation,
    TooFewGpus,
)
from canhazgpu.logfmt import log_line


class BookCheckedLedger(GrantCheckedLedger):
    """The store's ledger, checked against the node's book, in which every grant is entered.

    If the book cannot be read or written, a grant raises `NodeStateError`. A release, a
    quarantine and a read go on, and `log` gets a line.
    """

    def __init__(
        self,
        node: str,
        store: Ledger,
        book_file: BookFile,
        reconciler: Reconciler,
        log: Callable[[str], None],
    ) -> None:
        super().__init__(store)
        self._reconciler = reconciler
        self._just_read: NodeView | None = None
        self._log = log
        self._node = node
        self._book_file = book_file

    def reconcile(self) -> None:
        """Reconcile store and book; the next `read_nodes` returns the view that was read for it."""
        try:
            self._just_read = self._reconciler.reconcile(self.store)
        except NodeStateError as exc:
            # Releases and reads go on without the book; a grant fails by itself.
            self._log(log_line("no-book", node=self._node, reason=error_text(exc)))

    def reserve_count(
        self,
        claim: Claim,
        count: int,
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | TooFewGpus | QueuePosition:
        """See `Ledger.reserve_count`."""
        self._just_read = None
        return super().reserve_count(claim, count, observation, options)

    def reserve_given(
        self,
        claim: Claim,
        gpus: Sequence[str],
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | BlockedGpu | QueuePosition:
        """See `Ledger.reserve_given`."""
        self._just_read = None
        return super().reserve_given(claim, gpus, observation, options)

    def release(
        self, node: str, owner: str, reason: str, gpus: Sequence[str] = (), by: str = ""
    ) -> list[str]:
        """See `Ledger.release`."""
        self._just_read = None
        # The book first: a job reservation that only the book has counts as lost by the store.
        entry = JournalEntry(RELEASE, 0.0, owner, tuple(gpus), reason=reason, by=by)
        self._apply_to_book(node, entry)
        return super().release(node, owner, reason, gpus, by)

    def quarantine(self, node: str, gpu: str, reason: str, by: str) -> bool:
        """See `Ledger.quarantine`."""
        new = super().quarantine(node, gpu, reason, by)
        self._apply_to_book(node, JournalEntry(QUARANTINE, 0.0, gpus=(gpu,), reason=reason, by=by))
        return new

    def unquarantine(self, node: str, gpu: str, by: str) -> bool:
        """See `Ledger.unquarantine`."""
        lifted = super().unquarantine(node, gpu, by)
        self._apply_to_book(node, JournalEntry(UNQUARANTINE, 0.0, gpus=(gpu,), by=by))
        return lifted

    def read_nodes(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        """See `Ledger.read_nodes`; this node's job reservations come from the book."""
        just_read, self._just_read = self._just_read, None
        if just_read is not None and nodes is not None and list(nodes) == [self._node]:
            views = [just_read]
        else:
            views = super().read_nodes(nodes)
        try:
            with self._book_file.open() as transaction:
                book = transaction.book
        except NodeStateError as exc:
            self._log(log_line("no-book", node=self._node, reason=error_text(exc)))
            return views
        return [with_book_jobs(view, book) if view.node == self._node else view for view in views]

    def give_back_if_held(self, claim: Claim, answer: GrantedGpus) -> Reservation | None:
        """See `GrantCheckedLedger`; a grant that stands is entered in the book."""
        with self._book_file.open() as transaction:
            jobs = transaction.book.job_reservations()
            conflicting = [
                jobs[gpu]
                for gpu in answer.gpus
                if gpu in jobs and not _may_hold_beside(claim, jobs[gpu])
            ]
            if not conflicting:
                held = dict.fromkeys((*transaction.book.gpus_of(claim.owner), *answer.gpus))
                transaction.apply(
                    JournalEntry(GRANT, transaction.now, claim.owner, tuple(held), claim)
                )
                return None
        self.store.release(self._node, claim.owner, ANOTHER_JOB_RUNS)
        self._reconciler.reconcile(self.store)
        return conflicting[0]

    def _apply_to_book(self, node: str, entry: JournalEntry) -> None:
        if node != self._node:
            return
        try:
            with self._book_file.open() as transaction:
                transaction.apply(replace(entry, at=transaction.now))
        except NodeStateError as exc:
            # The next reconciliation checks the book's surplus entries, and drops them.
            self._log(log_line("no-book", node=self._node, reason=error_text(exc)))


def _may_hold_beside(claim: Claim, held: Reservation) -> bool:
    own = all(one.claim.owner == claim.owner for one in held.holders)
    return own or shares_with(claim, held)
