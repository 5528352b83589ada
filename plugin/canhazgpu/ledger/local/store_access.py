"""A node's way to the store: the store while it answers, something else while it does not.

A process uses the store until one operation fails. From then on it goes on without it. The time
that a process waits for the store is limited in total.

A store that did not answer a moment ago is waited for a short time only, but it is asked: a person
may have been granted a GPU since it is back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from canhazgpu.errors import NodeStateError, StoreError, error_text
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.journal import PendingEntries
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.values import NodeView
from canhazgpu.ledger.wait_budget import WaitBudget
from canhazgpu.logfmt import log_line

DEFAULT_WAIT_BUDGET_S = 2.5
"""Time that one hook may wait for the store in total; a failure then costs it less than 3 s."""

KNOWN_OUTAGE_WAIT_S = 0.25
"""Time that a hook waits for a store that did not answer a moment ago."""

T = TypeVar("T")


class KnownOutageError(StoreError):
    """Another process noted an outage of the store meanwhile."""


@dataclass(frozen=True, slots=True)
class StoreWaitPolicy:
    """How long a process waits for the store in total, and whether it goes on without it then."""

    decides_alone: bool
    wait_budget_s: float = DEFAULT_WAIT_BUDGET_S


class StoreAccess:
    """The store of one node, as one process of it uses it."""

    def __init__(
        self,
        node: str,
        open_store: Callable[[WaitBudget], Ledger],
        book_file: BookFile,
        outage: StoreOutage,
        reconciler: Reconciler,
        log: Callable[[str], None],
        policy: StoreWaitPolicy,
    ) -> None:
        """Take the node's parts.

        `open_store` imports the store's client before it contacts the store. `log` gets lines for
        the administrator. Outages are recorded in any case: people's commands read the record.
        """
        self._node = node
        self._open_store = open_store
        self._book_file = book_file
        self._outage = outage
        self._decides_alone = policy.decides_alone
        self._reconciler = reconciler
        self._log = log
        self._wait_budget_s = policy.wait_budget_s
        self._known_outage = ""
        self._store: Ledger | None = None
        self.offline_reason = ""
        """Why the node decides without the store; "" while it uses the store."""
        self.offline_step: str | None = None
        """What to do about it, where that is known."""
        self.just_read: NodeView | None = None
        """The view that the first contact read, until a change makes it outdated."""

    def ask(self, ask: Callable[[Ledger], T], otherwise: Callable[[], T]) -> T:
        """Return what the store answers; if it does not answer, what `otherwise` returns.

        Raises `StoreError` if the node may not decide without the store.
        """
        if not self.offline_reason:
            try:
                return ask(self._connected())
            except StoreError as exc:
                self._note_outage(exc)
                if not self._decides_alone:
                    raise
        return otherwise()

    def deliver_journal(self, pending: PendingEntries | None = None) -> None:
        """Send the journal to the store, if it answers; `pending` as it was just read."""
        self.just_read = None
        if self._store is None:
            # The first contact delivers it.
            pending = None

        def deliver(store: Ledger) -> None:
            self._reconciler.deliver_journal(store, pending)

        self.ask(deliver, lambda: None)

    def refresh_book(self) -> None:
        """Bring the book's copy of what others hold up to date, if the store answers."""
        self.ask(self._refresh, lambda: None)
        self.just_read = None

    def _refresh(self, store: Ledger) -> None:
        if self.just_read is None:
            self._reconciler.reconcile(store)

    def _connected(self) -> Ledger:
        """Return the store's ledger; the first call delivers the journal and reconciles."""
        if self._store is None:
            budget = self._new_wait_budget()
            store = self._open_store(budget)
            try:
                self.just_read = self._reconciler.reconcile(store)
            except NodeStateError as exc:
                # Releases and reads go on without the book; a grant fails by itself.
                self._log(log_line("no-book", node=self._node, reason=error_text(exc)))
            if self._outage.clear():
                self._book_file.publish()
                if self._decides_alone:
                    self._log(log_line("store-back", node=self._node))
                budget.set(self._wait_budget_s)
                self._known_outage = ""
            self._store = store
        return self._store

    def _new_wait_budget(self) -> WaitBudget:
        # A hook that must not go on without the store has no reason to stop waiting early.
        if not self._decides_alone:
            return WaitBudget()
        self._known_outage = self._outage.known_reason()
        if self._known_outage:
            return WaitBudget(min(KNOWN_OUTAGE_WAIT_S, self._wait_budget_s))
        budget = WaitBudget(self._wait_budget_s)
        budget.watch = self._raise_if_others_noted_outage
        return budget

    def _raise_if_others_noted_outage(self) -> None:
        if why := self._outage.reason_noted_meanwhile():
            raise KnownOutageError(why)

    def _note_outage(self, exc: StoreError) -> None:
        self._book_file.rebuild_obstacle = f"the store does not answer: {exc}"
        if self._decides_alone:
            self.offline_reason = self._known_outage or str(exc)
            self.offline_step = None if self._known_outage else exc.next_step
        if self._known_outage or isinstance(exc, KnownOutageError):
            return
        self._outage.note(str(exc))
        self._book_file.publish()
        if self._decides_alone:  # else the hook ends with this error, and logs it
            self._log(log_line("store-lost", node=self._node, reason=error_text(exc)))
