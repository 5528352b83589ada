"""A store in which no node has ever looked for orders."""

from __future__ import annotations

from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.orders import OrderReader
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.orders import OrderStore


class NoOrders(OrderStore):
    """Nobody takes orders; it needs no server."""

    def __init__(self, store: StoreConfig) -> None:
        super().__init__(store, Role.READ)

    def reader(self, node: str) -> OrderReader | None:
        return None

    def forget(self, node: str) -> None:
        return
