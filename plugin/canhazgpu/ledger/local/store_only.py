"""The operations of `Ledger` that fail without the store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

from canhazgpu.ledger.journal_entries import NumberedEntry, OverruledReservation
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.values import Event, Reservation, Waiter

T = TypeVar("T")


class StoreOnlyOperations(ABC):
    """Passes these operations to the store's ledger; see `canhazgpu.ledger.port.Ledger`."""

    @abstractmethod
    def ask_store(self, ask: Callable[[Ledger], T]) -> T:
        """Return the answer of the store's ledger; raises `StoreError` if the store fails."""

    def record_entries(
        self, node: str, journal: str, entries: Sequence[NumberedEntry]
    ) -> list[OverruledReservation]:
        """See `Ledger.record_entries`."""
        return self.ask_store(lambda store: store.record_entries(node, journal, entries))

    def extend(
        self, node: str, owner: str, duration_s: float, gpus: Sequence[str] = ()
    ) -> list[Reservation]:
        """See `Ledger.extend`."""
        return self.ask_store(lambda store: store.extend(node, owner, duration_s, gpus))

    def join_queue(self, node: str, waiter: Waiter) -> int:
        """See `Ledger.join_queue`."""
        return self.ask_store(lambda store: store.join_queue(node, waiter))

    def wait_for_event(self, node: str, after: str, timeout_s: float) -> str:
        """See `Ledger.wait_for_event`."""
        return self.ask_store(lambda store: store.wait_for_event(node, after, timeout_s))

    def forget_node(self, node: str) -> bool:
        """See `Ledger.forget_node`."""
        return self.ask_store(lambda store: store.forget_node(node))

    def history(self, node: str, since: float) -> list[Event]:
        """See `Ledger.history`."""
        return self.ask_store(lambda store: store.history(node, since))
