"""What each node counts of itself, for the page's metrics: one field beside its usage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from canhazgpu.ledger.store.keys import node_key, node_keys
from canhazgpu.ledger.store.nodes.node_views import read_node_names
from canhazgpu.ledger.store.session import StoreSession

if TYPE_CHECKING:
    from canhazgpu.config.schema import StoreConfig
    from canhazgpu.ledger.store.connect import Role

FIELD = "counters"
NODES_PER_READ = 1000
"""Nodes per pipeline; limits the size of one reply, not of the result."""
MAX_LENGTH = 20_000
"""Characters of one node's text; a longer one is another program's."""


class NodeCounters:
    """The counters of the nodes in a store. Raises `StoreError`."""

    def __init__(self, store: StoreConfig, role: Role) -> None:
        """Open nothing yet."""
        self._session = StoreSession(store, role)
        self._prefix = store.prefix

    def publish(self, node: str, text: str) -> None:
        """Put a node's counters in the place of those before."""
        with self._session.client() as client:
            client.hset(node_keys(node, self._prefix).usage, FIELD, text)

    def read(self) -> Iterator[dict[str, str]]:
        """Yield the texts of all nodes that have published them, some at a time."""
        with self._session.client() as client:
            names = read_node_names(client, self._prefix)
        for first in range(0, len(names), NODES_PER_READ):
            some = names[first : first + NODES_PER_READ]
            with self._session.client() as client:
                pipeline = client.pipeline(transaction=False)
                for name in some:
                    pipeline.hget(node_key(name, "usage", self._prefix), FIELD)
                texts = cast(list[object], pipeline.execute(raise_on_error=False))
            found = zip(some, texts, strict=True)
            yield {
                name: text
                for name, text in found
                if isinstance(text, str) and len(text) <= MAX_LENGTH
            }
