"""The ledger of a node's hooks: the store while it answers, the node's book while it does not.

A process uses the store until one operation fails. From then on it uses the book, and the journal
keeps the changes for the store. The time that a process waits for the store is limited in total.

A store that did not answer a moment ago is waited for a short time only, but it is asked: a person
may have been granted a GPU since it is back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

from canhazgpu.errors import CanhazgpuError, StoreError, error_text
from canhazgpu.ledger.journal_entries import JournalEntry
from canhazgpu.ledger.local.book_checked_ledger import BookCheckedLedger
from canhazgpu.ledger.local.book_file import BookFile
from canhazgpu.ledger.local.delegating_ledger import DelegatingLedger
from canhazgpu.ledger.local.offline_ledger import OfflineLedger
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.port import JOB_GRANT_OPTIONS, GrantOptions, Ledger, Observation
from canhazgpu.ledger.values import (
    BlockedGpu,
    Claim,
    GrantedGpus,
    NodeView,
    QueuePosition,
    TooFewGpus,
)
from canhazgpu.ledger.wait_budget import WaitBudget
from canhazgpu.logfmt import log_line
from canhazgpu.node.process_id import ProcessId

DEFAULT_WAIT_BUDGET_S = 2.5
"""Time that one hook may wait for the store in total; a failure then costs it less than 3 s."""

KNOWN_OUTAGE_WAIT_S = 0.25
"""Time that a hook waits for a store that did not answer a moment ago."""

CLOCK_LAG_S = 1.0
"""Added to the time of a note that is sent at once, so that it follows the hook's own events.

The node's estimate of the store's clock lags by the time that an answer takes. The store replaces
a time in its future by its own."""

T = TypeVar("T")


class KnownOutageError(StoreError):
    """Another process noted an outage of the store meanwhile."""


class FallbackLedger(DelegatingLedger):
    """The operations of `Ledger` that hooks need.

    `last_answer` is the answer to the last request for GPUs and `released` are by owner the GPUs
    released so far; the hook's log reads them. The methods raise `NodeStateError` if the book
    cannot be read or written. They raise `StoreError` only if the node may not decide without the
    store, or cannot know the answer.
    """

    def __init__(
        self,
        node: str,
        open_store: Callable[[WaitBudget], Ledger],
        book_file: BookFile,
        outage: StoreOutage | None,
        reconciler: Reconciler,
        log: Callable[[str], None],
        wait_budget_s: float = DEFAULT_WAIT_BUDGET_S,
    ) -> None:
        """Take the node's parts; without an `outage` the node never decides without the store.

        `open_store` imports the store's client before it contacts the store. `log` gets lines for
        the administrator.
        """
        self._node = node
        self._open_store = open_store
        self._book_file = book_file
        self._outage = outage
        self._record = outage
        self._reconciler = reconciler
        self._log = log
        self._wait_budget_s = wait_budget_s
        self._known_outage = ""
        self._local = OfflineLedger(node, book_file)
        self._opened: BookCheckedLedger | None = None
        self._offline_reason = ""
        self._offline_step: str | None = None
        self.last_answer: GrantedGpus | TooFewGpus | BlockedGpu | QueuePosition | None = None
        self.released: dict[str, list[str]] = {}

    def record_outages(self, record: StoreOutage) -> None:
        """Record outages for people, where the node does not decide without the store."""
        self._record = record

    @property
    def without_store(self) -> str:
        """Why the node decides without the store; "" while it uses the store."""
        return self._offline_reason

    def reserve_count(
        self,
        claim: Claim,
        count: int,
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | TooFewGpus | QueuePosition:
        """See `Ledger.reserve_count`."""
        answer: GrantedGpus | TooFewGpus | QueuePosition = self._store_or_book(
            lambda ledger: ledger.reserve_count(claim, count, observation, options),
            lambda: self._local.reserve_count(claim, count, observation, options.candidates),
        )
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
        answer: GrantedGpus | BlockedGpu | QueuePosition = self._store_or_book(
            lambda ledger: ledger.reserve_given(claim, gpus, observation, options),
            lambda: self._local.reserve_given(claim, gpus, observation),
        )
        self._note_answer(claim, answer)
        return answer

    def release(
        self, node: str, owner: str, reason: str, gpus: Sequence[str] = (), by: str = ""
    ) -> list[str]:
        """See `Ledger.release`."""
        released = self._store_or_book(
            lambda ledger: ledger.release(node, owner, reason, gpus, by),
            lambda: self._local.release(node, owner, reason, gpus, by),
        )
        if released:
            self.released.setdefault(owner, []).extend(released)
        return released

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
        """See `Ledger.renew`."""
        return self._store_or_book(
            lambda ledger: ledger.renew(node, owner, processes),
            lambda: self._local.renew(node, owner),
        )

    def leave_queue(self, node: str, owners: Sequence[str], reason: str) -> None:
        """See `Ledger.leave_queue`; does nothing without the store: there is no queue then."""
        self._store_or_book(lambda ledger: ledger.leave_queue(node, owners, reason), lambda: None)

    def quarantine(self, node: str, gpu: str, reason: str, by: str) -> bool:
        """See `Ledger.quarantine`."""
        return self._store_or_book(
            lambda ledger: ledger.quarantine(node, gpu, reason, by),
            lambda: self._local.quarantine(node, gpu, reason, by),
        )

    def unquarantine(self, node: str, gpu: str, by: str) -> bool:
        """See `Ledger.unquarantine`."""
        return self._store_or_book(
            lambda ledger: ledger.unquarantine(node, gpu, by),
            lambda: self._local.unquarantine(node, gpu, by),
        )

    def publish_scan(self, observation: Observation, alive: Collection[str] = ()) -> None:
        """See `Ledger.publish_scan`; without the store only the book is published."""
        self._store_or_book(
            lambda ledger: ledger.publish_scan(observation, alive), self._book_file.publish
        )

    def read_nodes(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        """See `Ledger.read_nodes`; without the store only this node can be read."""
        if nodes is None or list(nodes) != [self._node]:
            return super().read_nodes(nodes)
        return self._store_or_book(
            lambda ledger: ledger.read_nodes(nodes), lambda: [self._local.read_nodes()]
        )

    def ask_store(self, ask: Callable[[Ledger], T]) -> T:
        """See `DelegatingLedger.ask_store`."""

        def from_book() -> T:
            raise StoreError(self._offline_reason, next_step=self._offline_step)

        return self._store_or_book(lambda ledger: ask(ledger.store), from_book)

    def record_note(self, entry: JournalEntry) -> None:
        """Record now in the history what a hook saw and decided; never raises.

        A failure to record a note must not change what the hook does.
        """
        try:
            with self._book_file.open() as transaction:
                transaction.apply_and_journal(
                    replace(
                        entry, at=transaction.now + (0.0 if self._offline_reason else CLOCK_LAG_S)
                    )
                )
            self._store_or_book(
                lambda ledger: self._reconciler.deliver_journal(ledger.store), lambda: None
            )
        except CanhazgpuError as exc:
            self._log(log_line("not-in-history", node=self._node, reason=error_text(exc)))

    def _store_or_book(
        self, ask: Callable[[BookCheckedLedger], T], from_book: Callable[[], T]
    ) -> T:
        """Return what the store answers; if it does not answer, what `from_book` returns."""
        if not self._offline_reason:
            try:
                return ask(self._connected_ledger())
            except StoreError as exc:
                self._note_outage(exc)
                if self._outage is None:
                    raise
        return from_book()

    def _connected_ledger(self) -> BookCheckedLedger:
        """Return the store's ledger; the first call delivers the journal and reconciles."""
        if self._opened is None:
            budget = self._new_wait_budget()
            store = self._open_store(budget)
            ledger = BookCheckedLedger(
                self._node, store, self._book_file, self._reconciler, self._log
            )
            ledger.reconcile()
            if self._record is not None and self._record.clear():
                self._book_file.publish()
                if self._outage is not None:
                    self._log(log_line("store-back", node=self._node))
                budget.set(self._wait_budget_s)
                self._known_outage = ""
            self._opened = ledger
        return self._opened

    def _new_wait_budget(self) -> WaitBudget:
        # A hook that must not go on without the store has no reason to stop waiting early.
        if self._outage is None:
            return WaitBudget()
        self._known_outage = self._outage.known_reason()
        if self._known_outage:
            return WaitBudget(min(KNOWN_OUTAGE_WAIT_S, self._wait_budget_s))
        budget = WaitBudget(self._wait_budget_s)
        budget.watch = self._raise_if_others_noted_outage
        return budget

    def _raise_if_others_noted_outage(self) -> None:
        if self._outage is not None and (why := self._outage.reason_noted_meanwhile()):
            raise KnownOutageError(why)

    def _note_outage(self, exc: StoreError) -> None:
        if self._outage is not None:
            self._offline_reason = self._known_outage or str(exc)
            self._offline_step = None if self._known_outage else exc.next_step
        if self._record is None or self._known_outage or isinstance(exc, KnownOutageError):
            return
        self._record.note(str(exc))
        self._book_file.publish()
        if self._outage is not None:  # else the hook ends with this error, and logs it
            self._log(log_line("store-lost", node=self._node, reason=error_text(exc)))
