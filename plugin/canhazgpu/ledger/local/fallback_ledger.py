"""The ledger of a node's hooks: the node's book decides, and the store confirms while it answers.

A grant is opened in the book, confirmed by the store, and committed in the book by `commit` after
the second scan. So hooks never grant one GPU twice, whatever the store has lost, and no grant
outlives an attempt that ended meanwhile. While the store does not answer, the journal keeps the
changes for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

from canhazgpu.errors import CanhazgpuError, NodeStateError, StoreError, error_text
from canhazgpu.ledger.journal_entries import RELEASE, JournalEntry
from canhazgpu.ledger.local.book.book import with_book_jobs
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.grant_rules import grant_count, grant_given
from canhazgpu.ledger.local.book_grants import BookGrants, Committer, StoreConfirmedGrants
from canhazgpu.ledger.local.book_quarantines import BookQuarantines
from canhazgpu.ledger.local.book_releases import BookReleases
from canhazgpu.ledger.local.delegating_ledger import DelegatingLedger
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.local.store_access import StoreAccess
from canhazgpu.ledger.port import JOB_GRANT_OPTIONS, GrantOptions, Ledger, Observation
from canhazgpu.ledger.values import (
    BlockedGpu,
    Claim,
    CommitRefusal,
    GrantedGpus,
    NodeView,
    QueuePosition,
    TooFewGpus,
)
from canhazgpu.logfmt import log_line
from canhazgpu.node.process_id import ProcessId

CLOCK_LAG_S = 1.0
"""Added to the time of a note that is sent at once, so that it follows the hook's own events.

The node's estimate of the store's clock lags by the time that an answer takes. The store replaces
a time in its future by its own."""

T = TypeVar("T")


class FallbackLedger(DelegatingLedger):
    """The operations of `Ledger` that hooks need.

    `last_answer` is the answer to the last request for GPUs; the hook's log reads it. The methods
    raise `NodeStateError` if the book
    cannot be read or written. They raise `StoreError` only if the node may not decide without the
    store, or cannot know the answer.
    """

    def __init__(
        self,
        node: str,
        book_file: BookFile,
        access: StoreAccess,
        reconciler: Reconciler,
        log: Callable[[str], None],
        committer: Committer | None = None,
    ) -> None:
        """Take the node's parts; `log` gets lines for the administrator."""
        self._node = node
        self._book_file = book_file
        self._log = log
        self._access = access
        grants = BookGrants(node, book_file, reconciler, committer)
        self._grants = StoreConfirmedGrants(grants, access)
        self._releases = BookReleases(node, book_file, access, log)
        self._quarantines = BookQuarantines(node, book_file, access, log)
        self.last_answer: GrantedGpus | TooFewGpus | BlockedGpu | QueuePosition | None = None

    @property
    def without_store(self) -> str:
        """Why the node decides without the store; "" while it uses the store."""
        return self._access.offline_reason

    def store_error(self) -> StoreError:
        """Return the error of a store that did not serve; see `without_store`."""
        return StoreError(self.without_store, next_step=self._access.offline_step)

    def reserve_count(
        self,
        claim: Claim,
        count: int,
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | TooFewGpus | QueuePosition:
        """See `Ledger.reserve_count`; affinity is the store's, and does not count here."""
        answer = self._grants.reserve(
            claim,
            observation,
            lambda book, now: grant_count(
                book, claim, count, observation, now, candidates=options.candidates
            ),
            chooses_anew=True,
            on_intent=options.on_intent,
        )
        assert not isinstance(answer, BlockedGpu)  # noqa: S101 - choosing anew ends with a count
        self._note_answer(claim, answer)
        return answer

    def reserve_given(
        self,
        claim: Claim,
        gpus: Sequence[str],
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | BlockedGpu | QueuePosition:
        """See `Ledger.reserve_given`."""
        answer = self._grants.reserve(
            claim,
            observation,
            lambda book, now: grant_given(book, claim, gpus, observation, now),
            chooses_anew=False,
            on_intent=options.on_intent,
        )
        if isinstance(answer, TooFewGpus):
            answer = BlockedGpu(gpus[0], "stale")
        self._note_answer(claim, answer)
        return answer

    def commit(self, owner: str) -> CommitRefusal | None:
        """See `Ledger.commit`."""
        refusal = self._grants.commit(owner)
        if refusal is not None:
            self.last_answer = None
        return refusal

    def release(
        self, node: str, owner: str, reason: str, gpus: Sequence[str] = (), by: str = ""
    ) -> list[str]:
        """See `Ledger.release`, and `BookReleases` for the grant that is meant."""
        self._require_this_node(node)
        gpus = self._releases.release(
            JournalEntry(RELEASE, 0.0, owner, tuple(gpus), reason=reason, by=by)
        )
        self._grants.forget(owner)
        return gpus

    @property
    def released(self) -> dict[str, list[str]]:
        """By owner the GPUs released so far."""
        return self._releases.released

    def _note_answer(
        self, claim: Claim, answer: GrantedGpus | TooFewGpus | BlockedGpu | QueuePosition
    ) -> None:
        self.last_answer = answer
        if isinstance(answer, GrantedGpus):
            # What it gave back before, it has again.
            self.released.pop(claim.owner, None)

    def renew(
        self, node: str, owner: str, processes: Sequence[ProcessId] | None = None
    ) -> list[str]:
        """See `Ledger.renew`; a heartbeat is recorded in the store only."""
        self._require_this_node(node)

        def from_book() -> list[str]:
            with self._book_file.open() as transaction:
                return transaction.book.gpus_of(owner)

        return self._access.ask(lambda store: store.renew(node, owner, processes), from_book)

    def leave_queue(self, node: str, owners: Sequence[str], reason: str) -> None:
        """See `Ledger.leave_queue`; does nothing without the store: there is no queue then."""
        self._access.ask(lambda store: store.leave_queue(node, owners, reason), lambda: None)

    def quarantine(self, node: str, gpu: str, reason: str, by: str) -> bool:
        """See `Ledger.quarantine`."""
        self._require_this_node(node)
        return self._quarantines.set(gpu, reason, by)

    def unquarantine(self, node: str, gpu: str, by: str) -> bool:
        """See `Ledger.unquarantine`."""
        self._require_this_node(node)
        return self._quarantines.lift(gpu, by)

    def publish_scan(self, observation: Observation, alive: Collection[str] = ()) -> None:
        """See `Ledger.publish_scan`; without the store only the book is published."""
        self._access.ask(
            lambda store: store.publish_scan(observation, alive), self._book_file.publish
        )

    def read_nodes(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        """See `Ledger.read_nodes`; without the store only this node can be read."""
        if nodes is None or list(nodes) != [self._node]:
            return super().read_nodes(nodes)
        return [self._access.ask(self._read_by_store, self._read_by_book)]

    def ask_store(self, ask: Callable[[Ledger], T]) -> T:
        """See `DelegatingLedger.ask_store`."""

        def fail() -> T:
            raise self.store_error()

        return self._access.ask(ask, fail)

    def record_note(self, entry: JournalEntry) -> None:
        """Record now in the history what a hook saw and decided; never raises.

        A failure to record a note must not change what the hook does.
        """
        try:
            with self._book_file.open() as transaction:
                lag_s = 0.0 if self.without_store else CLOCK_LAG_S
                transaction.apply_and_journal(replace(entry, at=transaction.now + lag_s))
                pending = transaction.pending
            self._access.deliver_journal(pending)
        except CanhazgpuError as exc:
            self._log(log_line("not-in-history", node=self._node, reason=error_text(exc)))

    def _read_by_store(self, store: Ledger) -> NodeView:
        # The numbers first: what is granted after them is not what the view shows.
        self._note_numbers()
        view, self._access.just_read = self._access.just_read, None
        if view is None:
            (view,) = store.read_nodes([self._node])
        self._releases.note_view(view)
        try:
            with self._book_file.open() as transaction:
                return with_book_jobs(view, transaction.book)
        except NodeStateError as exc:
            self._log_no_book(exc)
            return view

    def _read_by_book(self) -> NodeView:
        self._releases.note_numbers({})
        with self._book_file.open() as transaction:
            book, now = transaction.book, transaction.now
        self._releases.note_numbers(book.grant_numbers)
        held, quarantines = book.reservations, book.quarantines
        return NodeView(self._node, now, None, None, held, book.released_at, quarantines)

    def _note_numbers(self) -> None:
        try:
            with self._book_file.open() as transaction:
                self._releases.note_numbers(transaction.book.grant_numbers)
        except NodeStateError:
            self._releases.note_numbers({})

    def _log_no_book(self, exc: NodeStateError) -> None:
        self._log(log_line("no-book", node=self._node, reason=error_text(exc)))

    def _require_this_node(self, node: str) -> None:
        if node != self._node:
            raise StoreError(f"hooks change nothing on {node}")
