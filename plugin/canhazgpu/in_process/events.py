"""Read the events of nodes, and follow them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from canhazgpu.errors import CanhazgpuError, InputError, UnknownNameError
from canhazgpu.ledger.store.history.stream_id import stream_position
from canhazgpu.service.history import EventsAnswer
from canhazgpu.status.event_format import NodeEvent, by_time

if TYPE_CHECKING:
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.ledger.values import Event, NodeView
    from canhazgpu.service.history import EventsRequest

MAX_FOLLOWED_NODES = 64
"""Nodes followed at once: each takes a thread and a connection."""
POLL_INTERVAL_S = 5.0
MAX_EVENT_DELAY_S = 3600.0
"""A node without Redis publishes its events later; events up to so many seconds old
are still followed."""


def read_events(adapters: Adapters, request: EventsRequest) -> EventsAnswer:
    """See `NodeService.events`; raises `UnknownNameError` for an unknown node."""
    if request.nodes:
        now, histories = read_histories(adapters, request.since_s, request.nodes)
        events = {view.node: history for view, history in histories}
    else:
        ledger = adapters.reader(adapters.effective_config().config)
        now, events = ledger.recent_events(request.since_s)
    found = [NodeEvent(node, event) for node, history in events.items() for event in history]
    return EventsAnswer(now, [*events], by_time(found))


def read_histories(
    adapters: Adapters, since_s: float, only: Sequence[str]
) -> tuple[float, list[tuple[NodeView, list[Event]]]]:
    """Return Redis' time, and each node with its events of the last `since_s` seconds.

    `only` names the nodes, none for all. Raises `UnknownNameError` for an unknown node.
    """
    config = adapters.effective_config().config
    ledger = adapters.reader(config)
    nodes = tuple(dict.fromkeys(only))
    views = ledger.read_nodes(nodes or None)
    now = max((view.read_at for view in views), default=0.0)
    found = []
    for view in views:
        history = ledger.history(view.node, now - since_s)
        if view.node in nodes and view.scan is None and not history:
            raise UnknownNameError(
                f"the ledger knows no node {view.node!r}; 'canhazgpu status' shows all it knows",
                kind="node",
            )
        found.append((view, history))
    return now, found


def follow_events(adapters: Adapters, previous: EventsAnswer) -> Iterator[NodeEvent]:
    """See `NodeService.follow`."""
    config = adapters.effective_config().config
    if len(previous.nodes) > MAX_FOLLOWED_NODES:
        raise InputError(
            f"there are {len(previous.nodes)} nodes; name up to {MAX_FOLLOWED_NODES} with --node"
            " to follow"
        )
    if not previous.nodes:
        raise InputError("the ledger knows no node yet; name one with --node to wait for it")
    events: queue.SimpleQueue[NodeEvent | CanhazgpuError] = queue.SimpleQueue()
    last = dict.fromkeys(previous.nodes, (int(previous.now * 1000), 0))
    for one in previous.events:
        last[one.node] = max(last[one.node], stream_position(one.event.id))
    for node in previous.nodes:
        follower = _NodeFollower(adapters.reader(config), node, last[node], previous.now)
        threading.Thread(target=follower.run, args=(events,), daemon=True).start()
    while True:
        event = events.get()
        if isinstance(event, CanhazgpuError):
            raise event
        yield event


class _NodeFollower:
    """Reads one node's history from a stream position on."""

    def __init__(self, ledger: Ledger, node: str, last: tuple[int, int], now: float) -> None:
        self._ledger = ledger
        self._node = node
        self._last = last
        # Not by the events' own numbers: one of the far future would hide all that follow.
        self._store_clock_offset_s = now - time.monotonic()

    def run(self, events: queue.SimpleQueue[NodeEvent | CanhazgpuError]) -> None:
        """Put each new event into the queue, and the error that ends this."""
        try:
            after = self._ledger.wait_for_event(self._node, "", 0)
            while True:
                now = time.monotonic() + self._store_clock_offset_s
                new = [
                    NodeEvent(self._node, event)
                    for event in self._ledger.history(self._node, now - MAX_EVENT_DELAY_S)
                    if stream_position(event.id) > self._last
                ]
                for one in by_time(new):
                    events.put(one)
                self._last = max([self._last, *(stream_position(one.event.id) for one in new)])
                after = self._ledger.wait_for_event(self._node, after, POLL_INTERVAL_S)
        except CanhazgpuError as exc:
            events.put(exc)
