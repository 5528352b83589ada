"""What happened on the nodes, and what happens from now on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from canhazgpu.errors import CanhazgpuError, InputError
from canhazgpu.service.history import EventsAnswer
from canhazgpu.status.event_format import NodeEvent, by_time

if TYPE_CHECKING:
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.service.history import EventsRequest

MAX_FOLLOWED = 64
"""Nodes followed at once: each takes a connection of its own."""
LOOK_EVERY_S = 5.0
LATE_S = 3600.0
"""What a node did without its store is told later, by so much at most here."""


def read_events(adapters: Adapters, request: EventsRequest) -> EventsAnswer:
    """See `NodeService.events`; raises `InputError` for an unknown node."""
    config = adapters.effective().config
    ledger = adapters.reader(config.store)
    nodes = tuple(dict.fromkeys(request.nodes))
    views = ledger.read_nodes(nodes or None)
    now = max((view.read_at for view in views), default=0.0)
    found: list[NodeEvent] = []
    for view in views:
        history = ledger.history(view.node, now - request.since_s)
        if view.node in nodes and view.scan is None and not history:
            raise InputError(
                f"the ledger knows no node {view.node!r}; 'canhazgpu status' shows all it knows"
            )
        found += [NodeEvent(view.node, event) for event in history]
    return EventsAnswer(now, [view.node for view in views], by_time(found))


def follow_events(adapters: Adapters, shown: EventsAnswer) -> Iterator[NodeEvent]:
    """See `NodeService.follow`."""
    config = adapters.effective().config
    if len(shown.nodes) > MAX_FOLLOWED:
        raise InputError(
            f"there are {len(shown.nodes)} nodes; name up to {MAX_FOLLOWED} with --node to follow"
        )
    if not shown.nodes:
        raise InputError("the ledger knows no node yet; name one with --node to wait for it")
    told: queue.SimpleQueue[NodeEvent | CanhazgpuError] = queue.SimpleQueue()
    last = dict.fromkeys(shown.nodes, (int(shown.now * 1000), 0))
    for one in shown.events:
        last[one.node] = max(last[one.node], _stream_position(one.event.id))
    for node in shown.nodes:
        follower = _Follower(adapters.reader(config.store), node, last[node], shown.now)
        threading.Thread(target=follower.run, args=(told,), daemon=True).start()
    while True:
        one_more = told.get()
        if isinstance(one_more, CanhazgpuError):
            raise one_more
        yield one_more


class _Follower:
    """One node's history from a position on."""

    def __init__(self, ledger: Ledger, node: str, last: tuple[int, int], now: float) -> None:
        self._ledger = ledger
        self._node = node
        self._last = last
        self._now = now

    def run(self, told: queue.SimpleQueue[NodeEvent | CanhazgpuError]) -> None:
        """Put each event into the queue, and what ends that."""
        try:
            after = self._ledger.wait_for_event(self._node, "", 0)
            while True:
                new = [
                    NodeEvent(self._node, event)
                    for event in self._ledger.history(self._node, self._now - LATE_S)
                    if _stream_position(event.id) > self._last
                ]
                for one in by_time(new):
                    told.put(one)
                self._last = max([self._last, *(_stream_position(one.event.id) for one in new)])
                self._now = max(self._now, self._last[0] / 1000)
                after = self._ledger.wait_for_event(self._node, after, LOOK_EVERY_S)
        except CanhazgpuError as exc:
            told.put(exc)


def _stream_position(entry_id: str) -> tuple[int, int]:
    """Return an event's position in its stream, for comparison."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)
