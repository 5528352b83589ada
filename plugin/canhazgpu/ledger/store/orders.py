"""Orders to a node in Redis: appended by whoever may give them, taken by the node alone.

To append takes one plain command, RPUSH, which is all that a login for orders may do. A node takes
an order by ``scripts/node/take_order.lua``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from canhazgpu.errors import InputError, UnavailableError
from canhazgpu.ledger.orders import (
    ANSWERS_KEPT_S,
    MAX_ANSWER_BYTES,
    MAX_ORDER_BYTES,
    MAX_WAITING_ORDERS,
    OrderLook,
    OrderProgress,
    OrderReader,
    OrderReaderKind,
    TakenOrder,
    order_progress,
)
from canhazgpu.ledger.store.connect import Role, connect, translate_errors
from canhazgpu.ledger.store.keys import OrderKeys, node_keys, nodes_key, order_keys
from canhazgpu.ledger.store.session import StoreSession
from canhazgpu.ledger.values import RECORD_ERRORS
from canhazgpu.ledger.wait_budget import LongWaitBudget

if TYPE_CHECKING:
    import redis

    from canhazgpu.config.schema import StoreConfig
    from canhazgpu.node.identity import NodeIdentity

LATE_S = 0.5
"""How late a server may end a wait; it looks at its clients' times ten times a second."""
SKIPPED_AT_ONCE = 100
"""Unusable texts that one script removes from a node's orders."""


class OrderStore:
    """The orders of all nodes; every method raises `StoreError`."""

    def __init__(
        self, store: StoreConfig, role: Role, identity: NodeIdentity | None = None
    ) -> None:
        """Open nothing yet; `identity` is the node's that takes orders, see `RedisLedger`."""
        self._store, self._role = store, role
        self._session = StoreSession(store, role, identity=identity)
        self._prefix = store.prefix
        self._waiting: redis.Redis | None = None

    def now(self) -> float:
        """Return the store's time, in seconds since the epoch."""
        with self._session.client() as client:
            seconds, microseconds = client.time()
        return seconds + microseconds / 1e6

    def give(self, node: str, order_id: str, text: str) -> None:
        """Append an order; to give one again is safe.

        Raises `UnavailableError` where as many wait as may.
        """
        entry = f"{order_id} {text}"
        if len(entry.encode("utf-8", "replace")) > MAX_ORDER_BYTES:
            raise InputError(f"the order is longer than {MAX_ORDER_BYTES} bytes: name fewer GPUs")
        with self._session.client() as client:
            if client.llen(self._keys(node).orders) >= MAX_WAITING_ORDERS:
                raise UnavailableError(
                    f"{MAX_WAITING_ORDERS} orders wait for {node} already: it does not take them"
                )
            client.rpush(self._keys(node).orders, entry)

    def progress(self, node: str, order_id: str) -> OrderProgress:
        """Return how far an order is."""
        with self._session.client() as client:
            recorded = cast(str | None, client.hget(self._keys(node).order_answers, order_id))
        return order_progress(recorded)

    def reader(self, node: str) -> OrderReader | None:
        """Return who takes the node's orders, None if nobody has ever looked for any."""
        with self._session.client() as client:
            text = cast(str | None, client.get(self._keys(node).order_reader))
        try:
            found = json.loads(text or "")
            kind, at_s = OrderReaderKind(found["kind"]), float(found["at_ms"]) / 1000
            interval_ms = found.get("interval_ms")
            interval_s = None if interval_ms is None else float(interval_ms) / 1000
        except (*RECORD_ERRORS, AttributeError):
            return None
        return OrderReader(kind, max(self.now() - at_s, 0.0), interval_s)

    def disconnect(self) -> None:
        """Hang up; the next use connects again."""
        self._session.disconnect()

    def take(self, node: str, kind: OrderReaderKind) -> TakenOrder | None:
        """Take the node's earliest order, None for none; for one process of the node at a time."""
        while True:
            now_ms, order_id, found = self._session.run_script(
                "take_order",
                node_keys(node, self._prefix),
                kind.value,
                int(ANSWERS_KEPT_S * 1000),
                MAX_ORDER_BYTES,
                SKIPPED_AT_ONCE,
                more_keys=self._keys(node).in_order(),
            )
            if order_id:
                return TakenOrder(order_id, found, now_ms / 1000)
            if int(found) < SKIPPED_AT_ONCE:
                return None

    def answer(self, node: str, order: TakenOrder, text: str) -> None:
        """Record the answer to an order that was taken."""
        if len(text.encode("utf-8", "replace")) > MAX_ANSWER_BYTES:
            raise AssertionError("the answer is too long")
        recorded = f"{int(order.taken_at * 1000)} {text}"
        with self._session.client() as client:
            client.hset(self._keys(node).order_answers, order.id, recorded)

    def look(self, node: str) -> OrderLook:
        """Return whether the node has an order; no connection is kept."""
        with self._session.client() as client:
            pipeline = client.pipeline(transaction=False)
            pipeline.llen(self._keys(node).orders)
            pipeline.scard(nodes_key(self._prefix))
            waiting, nodes = pipeline.execute()
        self._session.disconnect()
        return OrderLook(waiting > 0, nodes)

    def wait(self, node: str, timeout_s: float) -> bool:
        """Wait until the node has an order; return whether it has. Nothing is taken."""
        orders = self._keys(node).orders
        with translate_errors(self._store):
            client = self._waiting_client(timeout_s)
            # The first becomes the first again: this alone waits for a list and leaves it as it is.
            found = cast(Any, client).blmove(orders, orders, timeout_s, "LEFT", "LEFT")
        return found is not None

    def forget(self, node: str) -> None:
        """Remove a node's orders, and who takes them."""
        with self._session.client() as client:
            client.delete(*self._keys(node).in_order())

    def _waiting_client(self, timeout_s: float) -> redis.Redis:
        if self._waiting is None:
            # The server ends a wait a little late; then the answer has the usual time.
            store = replace(self._store, timeout_s=timeout_s + LATE_S + self._store.timeout_s)
            self._waiting = connect(store, self._role, LongWaitBudget(self._store.timeout_s))
        return self._waiting

    def _keys(self, node: str) -> OrderKeys:
        return order_keys(node, self._prefix)
