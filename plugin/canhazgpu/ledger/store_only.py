"""Operations of `Ledger` that no node can do alone: without the store they fail."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

from canhazgpu.ledger.entries import Numbered, Overruled
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.values import Event, Reservation, Waiter

T = TypeVar("T")


class StoreOnly(ABC):
    """Hands these operations to the store; see `canhazgpu.ledger.port.Ledger` for each."""

    @abstractmethod
    def ask_store(self, ask: Callable[[Ledger], T]) -> T:
        """Return what the store's ledger answers; raises `StoreError` where it does not serve."""

    def record(self, node: str, journal: str, entries: Sequence[Numbered]) -> list[Overruled]:
        """See `Ledger.record`."""
        return self.ask_store(lambda store: store.record(node, journal, entries))

    def extend(
        self, node: str, owner: str, duration_s: float, gpus: Sequence[str] = ()
    ) -> list[Reservation]:
        """See `Ledger.extend`."""
        return self.ask_store(lambda store: store.extend(node, owner, duration_s, gpus))

    def wait_turn(self, node: str, waiter: Waiter) -> int:
        """See `Ledger.wait_turn`."""
        return self.ask_store(lambda store: store.wait_turn(node, waiter))

    def await_change(self, node: str, after: str, timeout_s: float) -> str:
        """See `Ledger.await_change`."""
        return self.ask_store(lambda store: store.await_change(node, after, timeout_s))

    def forget_node(self, node: str) -> bool:
        """See `Ledger.forget_node`."""
        return self.ask_store(lambda store: store.forget_node(node))

    def history(self, node: str, since: float) -> list[Event]:
        """See `Ledger.history`."""
        return self.ask_store(lambda store: store.history(node, since))
