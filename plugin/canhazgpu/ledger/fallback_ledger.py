"""The ledger of a node's hooks: the store's where it serves, the node's own book where it does not.

A process asks the store until it fails once; from then on the book decides, and its journal keeps
what the store has to hear. How long a process waits for the store in all is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

from canhazgpu.errors import CanhazgpuError, StoreError, explain
from canhazgpu.ledger.contact import Contact
from canhazgpu.ledger.entries import Entry
from canhazgpu.ledger.local_ledger import LocalLedger
from canhazgpu.ledger.patience import Patience, patient
from canhazgpu.ledger.port import JOB_TERMS, Ledger, Observation, Terms
from canhazgpu.ledger.store_only import StoreOnly
from canhazgpu.ledger.values import (
    Blocked,
    Claim,
    Granted,
    NodeView,
    ProcessId,
    Queued,
    Short,
)
from canhazgpu.ledger.witnessed_ledger import WitnessedLedger
from canhazgpu.logline import log_line
from canhazgpu.node.book_file import BookFile
from canhazgpu.node.outage import Outage

DEFAULT_PATIENCE_S = 2.5
"""All waiting of one hook for the store; with what else a failure costs it stays below 3 s."""

SOON_S = 1.0
"""What a hook tells at once comes after what it did: the node's idea of the store's clock is behind
by as long as an answer takes, and the store takes no time for later than its own."""

T = TypeVar("T")


class KnownOutageError(StoreError):
    """The store did not serve a moment ago; it was not asked again."""


class FallbackLedger(StoreOnly):
    """What hooks need of `Ledger`; see there.

    `last_answer` and `released` tell what came of it: for the story of a hook.
    Beside that its methods raise `NodeStateError` where the node's book cannot be kept, and
    `StoreError` only where the node may not decide alone, or cannot know.
    """

    def __init__(
        self,
        node: str,
        open_store: Callable[[], Ledger],
        book_file: BookFile,
        outage: Outage | None,
        contact: Contact,
        tell: Callable[[str], None],
        patience_s: float = DEFAULT_PATIENCE_S,
    ) -> None:
        """Take the node's parts; without an `outage` the node never decides alone.

        `tell` hears what an administrator should know.
        """
        self._node = node
        self._open_store = open_store
        self._book_file = book_file
        self._outage = outage
        self._contact = contact
        self._tell = tell
        self._patience = Patience(patience_s, self._heed_others)
        self._local = LocalLedger(node, book_file)
        self._opened: WitnessedLedger | None = None
        self._without = ""
        self.last_answer: Granted | Short | Blocked | Queued | None = None
        self.released: list[str] = []

    @property
    def without_store(self) -> str:
        """Why the node decides alone; "" while it does not."""
        return self._without

    def reserve_count(
        self, claim: Claim, count: int, observation: Observation, terms: Terms = JOB_TERMS
    ) -> Granted | Short | Queued:
        """See `Ledger.reserve_count`."""
        answer: Granted | Short | Queued = self._do(
            lambda ledger: ledger.reserve_count(claim, count, observation, terms),
            lambda: self._local.reserve_count(claim, count, observation),
        )
        self.last_answer = answer
        return answer

    def reserve_given(
        self,
        claim: Claim,
        gpus: Sequence[str],
        observation: Observation,
        terms: Terms = JOB_TERMS,
    ) -> Granted | Blocked | Queued:
        """See `Ledger.reserve_given`."""
        answer: Granted | Blocked | Queued = self._do(
            lambda ledger: ledger.reserve_given(claim, gpus, observation, terms),
            lambda: self._local.reserve_given(claim, gpus, observation),
        )
        self.last_answer = answer
        return answer

    def release(
        self, node: str, owner: str, reason: str, gpus: Sequence[str] = (), by: str = ""
    ) -> list[str]:
        """See `Ledger.release`."""
        gone = self._do(
            lambda ledger: ledger.release(node, owner, reason, gpus, by),
            lambda: self._local.release(node, owner, reason, gpus, by),
        )
        self.released += gone
        return gone

    def renew(
        self, node: str, owner: str, processes: Sequence[ProcessId] | None = None
    ) -> list[str]:
        """See `Ledger.renew`."""
        return self._do(
            lambda ledger: ledger.store.renew(node, owner, processes),
            lambda: self._local.renew(node, owner),
        )

    def leave_queue(self, node: str, owners: Sequence[str], reason: str) -> None:
        """See `Ledger.leave_queue`; without the store there is no queue."""
        self._do(lambda ledger: ledger.store.leave_queue(node, owners, reason), lambda: None)

    def quarantine(self, node: str, gpu: str, reason: str, by: str) -> bool:
        """See `Ledger.quarantine`."""
        return self._do(
            lambda ledger: ledger.quarantine(node, gpu, reason, by),
            lambda: self._local.quarantine(node, gpu, reason, by),
        )

    def unquarantine(self, node: str, gpu: str, by: str) -> bool:
        """See `Ledger.unquarantine`."""
        return self._do(
            lambda ledger: ledger.unquarantine(node, gpu, by),
            lambda: self._local.unquarantine(node, gpu, by),
        )

    def publish_scan(self, observation: Observation, alive: Collection[str] = ()) -> None:
        """See `Ledger.publish_scan`; without the store there is nobody to show it to."""
        self._do(lambda ledger: ledger.store.publish_scan(observation, alive), lambda: None)

    def look(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        """See `Ledger.look`; without the store this node alone is known."""
        if nodes is None or list(nodes) != [self._node]:
            return self.ask_store(lambda store: store.look(nodes))
        return self._do(lambda ledger: ledger.look(nodes), lambda: [self._local.look()])

    def ask_store(self, ask: Callable[[Ledger], T]) -> T:
        """See `StoreOnly.ask_store`."""

        def alone() -> T:
            raise StoreError(self._without)

        return self._do(lambda ledger: ask(ledger.store), alone)

    def tell(self, entry: Entry) -> None:
        """Put into the history what a hook saw and decided, now; never raises.

        What a hook tells of itself must not change what it does.
        """
        try:
            with self._book_file.open() as page:
                page.do(replace(entry, at=page.now + (0.0 if self._without else SOON_S)))
            self._do(lambda ledger: self._contact.deliver(ledger.store), lambda: None)
        except CanhazgpuError as exc:
            self._tell(log_line("not-in-history", node=self._node, reason=explain(exc)))

    def _do(self, ask: Callable[[WitnessedLedger], T], alone: Callable[[], T]) -> T:
        """Let the store do it, or the node alone where the store does not serve."""
        if not self._without:
            try:
                return ask(self._store())
            except StoreError as exc:
                if self._outage is None:
                    raise
                self._lose(exc)
        return alone()

    def _store(self) -> WitnessedLedger:
        """Return the store's ledger, once it has heard what this node did without it."""
        if self._opened is None:
            if self._outage is not None and (known := self._outage.why_not_ask()):
                raise KnownOutageError(known)
            store = self._open_bounded()
            ledger = WitnessedLedger(self._node, store, self._book_file, self._contact, self._tell)
            ledger.meet()
            if self._outage is not None and self._outage.ended():
                self._tell(log_line("store-back", node=self._node))
            self._opened = ledger
        return self._opened

    def _open_bounded(self) -> Ledger:
        # Who must not go on without the store has no use for impatience.
        if self._outage is None:
            return self._open_store()
        return patient(self._patience.spend(self._open_store), self._patience)

    def _heed_others(self) -> None:
        if self._outage is not None and (why := self._outage.noted_meanwhile()):
            raise KnownOutageError(why)

    def _lose(self, exc: StoreError) -> None:
        self._without = str(exc)
        if self._outage is not None and not isinstance(exc, KnownOutageError):
            self._outage.began(self._without)
            self._tell(log_line("store-lost", node=self._node, reason=explain(exc)))
