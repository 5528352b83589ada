"""Read what a node's history has told since an event, in the order in which it was told."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from canhazgpu.ledger.store.history.entries import entry_position
from canhazgpu.ledger.store.history.reading import StreamEntry, events_between
from canhazgpu.ledger.store.history.stream_id import NO_ENTRY
from canhazgpu.ledger.store.keys import node_keys
from canhazgpu.ledger.store.session import StoreSession

if TYPE_CHECKING:
    from canhazgpu.config.schema import StoreConfig
    from canhazgpu.ledger.store.connect import Role
    from canhazgpu.ledger.values import Event


class HistoryTail:
    """The end of one node's history. Raises `StoreError`."""

    def __init__(self, store: StoreConfig, role: Role, node: str) -> None:
        """Open nothing yet."""
        self._session = StoreSession(store, role)
        self._keys = node_keys(node, store.prefix)

    def last_id(self) -> str:
        """Return the id of the last event."""
        with self._session.client() as client:
            last = cast(list[StreamEntry], client.xrevrange(self._keys.history, count=1))
        return last[0][0] if last else NO_ENTRY

    def after(self, event_id: str) -> list[Event]:
        """Return the events that were told after this one, the first told first."""
        events = events_between(self._session, self._keys, f"({event_id}", "+")
        return sorted(events, key=lambda one: entry_position(one.id) or (0, 0))
