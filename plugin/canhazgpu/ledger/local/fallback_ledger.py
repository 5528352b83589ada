"""The ledger of a node: its book decides, for jobs and for people, and the store confirms.

A grant is opened in the book, confirmed by the store, and committed in the book by `commit` after
the second scan. So one GPU is never granted twice, whatever the store has lost, and no grant
outlives an attempt that ended meanwhile. While the store does not answer, the journal keeps the
changes for it. Whose turn it is among people, the node's own queue says; jobs do not queue.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

from canhazgpu.errors import CanhazgpuError, NodeStateError, StoreError, error_text
from canhazgpu.ledger.duration_limit import check_duration
from canhazgpu.ledger.grant_answers import (
    BlockedGpu,
    CommitRefusal,
    GrantedGpus,
    QueuePosition,
    TooFewGpus,
)
from canhazgpu.ledger.journal_entries import RELEASE, JournalEntry
from canhazgpu.ledger.local.book.book import is_job_owner
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book_extensions import BookExtensions
from canhazgpu.ledger.local.book_grants import BookGrants, Committer, StoreConfirmedGrants
from canhazgpu.ledger.local.book_quarantines import BookQuarantines
from canhazgpu.ledger.local.book_releases import BookReleases
from canhazgpu.ledger.local.delegating_ledger import DelegatingLedger
from canhazgpu.ledger.local.grant_choice import GrantChoice
from canhazgpu.ledger.local.node_reads import NodeReads
from canhazgpu.ledger.local.queue.node_queue import NodeQueue
from canhazgpu.ledger.local.queue.queue_file import QueueFile
from canhazgpu.ledger.local.queue.queued_request import QueuedRequest
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.local.store_access import StoreAccess
from canhazgpu.ledger.port import JOB_GRANT_OPTIONS, GrantOptions, Ledger, Observation
from canhazgpu.ledger.user_limits import NO_LIMITS, UserLimits
from canhazgpu.ledger.values import Claim, NodeView, Reservation, Waiter
from canhazgpu.logfmt import log_line
from canhazgpu.node.process_id import ProcessId

CLOCK_LAG_S = 1.0
"""Added to the time of a note that is sent at once, so that it follows the hook's own events.

The node's estimate of the store's clock lags by the time that an answer takes. The store replaces
a time in its future by its own."""

Answer = GrantedGpus | TooFewGpus | BlockedGpu | QueuePosition
T = TypeVar("T")


class FallbackLedger(DelegatingLedger):
    """The ledger of this node; of other nodes it only reads.

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
        queue: QueueFile,
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
        self._extensions = BookExtensions(node, book_file, access)
        self._queue = NodeQueue(node, queue, book_file, access)
        self._reads = NodeReads(node, book_file, access, self._releases, self._queue, log)
        self.last_answer: Answer | None = None

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
        """See `Ledger.reserve_count`."""
        choice = self._choice(claim, observation, options)
        answer = self._grants.reserve(
            claim,
            observation,
            lambda book, now: choice.count(book, now, count),
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
        choice = self._choice(claim, observation, options)
        answer = self._grants.reserve(
            claim,
            observation,
            lambda book, now: choice.given(book, now, gpus),
            chooses_anew=False,
            on_intent=options.on_intent,
        )
        if isinstance(answer, TooFewGpus):
            answer = BlockedGpu(gpus[0], "stale")
        self._note_answer(claim, answer)
        return answer

    def _choice(self, claim: Claim, observation: Observation, options: GrantOptions) -> GrantChoice:
        if claim.duration_s is not None:
            check_duration(claim.duration_s)
        return GrantChoice(self._queue, claim, observation, options)

    def commit(self, owner: str) -> CommitRefusal | None:
        """See `Ledger.commit`."""
        refusal = self._grants.commit(owner)
        if refusal is not None:
            self.last_answer = None
        elif not is_job_owner(owner):
            self._leave_queue_served(owner)
        return refusal

    def _leave_queue_served(self, owner: str) -> None:
        """Take note that the owner waits no more; its grant stands, whatever fails here."""
        try:
            self._queue.served(owner)
        except NodeStateError as exc:
            self._log(log_line("no-queue", node=self._node, reason=error_text(exc)))

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

    def _note_answer(self, claim: Claim, answer: Answer) -> None:
        self.last_answer = answer
        if isinstance(answer, GrantedGpus):
            # What it gave back before, it has again.
            self.released.pop(claim.owner, None)

    def renew(
        self, node: str, owner: str, processes: Sequence[ProcessId] | None = None
    ) -> list[str]:
        """See `Ledger.renew`; the store has the heartbeat, and the book what is held.

        What only one of the two has is restored, or found to be released, before the answer.
        """
        self._require_this_node(node)
        in_book, is_own = self._held(owner, processes)
        held = self._access.ask(lambda store: store.renew(node, owner, processes), lambda: in_book)
        if not is_own or set(held) == set(in_book):
            return held
        self._access.refresh_book()
        return self._held(owner, None)[0]

    def _held(self, owner: str, processes: Sequence[ProcessId] | None) -> tuple[list[str], bool]:
        """Return what the owner has in the book, and whether the node recorded it itself."""
        with self._book_file.open() as transaction:
            if processes:
                transaction.book = transaction.book.with_processes(owner, processes)
            return transaction.book.gpus_of(owner), owner in transaction.book.own_owners

    def extend(
        self,
        node: str,
        owner: str,
        duration_s: float,
        gpus: Sequence[str] = (),
        longest_s: float = 0.0,
    ) -> list[Reservation]:
        """See `Ledger.extend`."""
        self._require_this_node(node)
        return self._extensions.extend(owner, duration_s, gpus, longest_s)

    def join_queue(self, node: str, waiter: Waiter) -> int:
        """See `Ledger.join_queue`; one heartbeat is for all who wait here."""
        self._require_this_node(node)
        return self._queue.join(QueuedRequest(waiter))

    def wait_in_queue(self, entry: QueuedRequest, limits: UserLimits = NO_LIMITS) -> int:
        """Join this node's queue as `join_queue`, until the waiter gives up.

        Raises `LimitError` for a new entry that is more than these limits of its user's allow.
        """
        return self._queue.join(entry, limits)

    def move_to_end(self, owner: str) -> None:
        """Let all others in this node's queue pass."""
        self._queue.move_to_end(owner)

    def renew_queue(self) -> None:
        """Record a heartbeat of all who wait in this node's queue; it is the store's alone."""
        self._queue.mirror()

    def leave_queue(self, node: str, owners: Sequence[str], reason: str) -> None:
        """See `Ledger.leave_queue`; without the store only this node's own queue is left."""
        self._require_this_node(node)
        self._queue.leave(owners, reason)

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
        self._access.just_read = None

    def forget_node(self, node: str) -> bool:
        """See `Ledger.forget_node`; nobody waits for this node's GPUs then."""
        self._require_this_node(node)
        forgotten = super().forget_node(node)
        self._queue.leave([one.owner for one in self._queue.waiters()], "node forgotten")
        return forgotten

    def read_nodes(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        """See `Ledger.read_nodes`; without the store only this node can be read."""
        if nodes is not None and list(nodes) == [self._node]:
            return [self._reads.this_node()]
        if nodes is not None and self._node not in nodes:
            return super().read_nodes(nodes)
        return self.ask_store(lambda store: self._reads.among_others(store, nodes))

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
                pending = transaction.undelivered()
            self._access.deliver_journal(pending)
        except CanhazgpuError as exc:
            self._log(log_line("not-in-history", node=self._node, reason=error_text(exc)))

    def _require_this_node(self, node: str) -> None:
        if node != self._node:
            raise StoreError(f"{self._node} changes nothing on {node}")
