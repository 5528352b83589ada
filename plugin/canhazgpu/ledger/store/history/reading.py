"""Read a node's history, a stream of events, and wait for its next event.

Every change that a waiter may wait for is an event, so a blocking read of the stream wakes it.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import cast

from canhazgpu.ledger.store.history.entries import events_from_entry, short_names
from canhazgpu.ledger.store.keys import NodeKeys
from canhazgpu.ledger.store.session import DAY_MS, MAX_BLOCK_S, StoreSession
from canhazgpu.ledger.values import Event

ENTRIES_PER_READ = 1000
"""Entries per read; limits the size of one reply, not of the result."""
NO_EVENT = "0-0"
"""The id before the first event."""

StreamEntry = tuple[str, dict[str, str]]


def read_history(session: StoreSession, node: NodeKeys, since: float) -> list[Event]:
    """Return the events whose own time is `since` or later, the oldest first."""
    # An event's own time is never later than its entry's: an expiry is written when it is noticed.
    events = events_between(session, node, f"{max(int(since * 1000), 0)}-0", "+")
    return [one for one in events if one.at >= since]


def read_days(session: StoreSession, node: NodeKeys, days: Collection[int]) -> list[Event]:
    """Return the events that were told on these days (UTC, since 1970), the oldest first."""
    events: list[Event] = []
    for day in sorted(days):
        events += events_between(session, node, f"{day * DAY_MS}-0", f"({(day + 1) * DAY_MS}-0")
    return sorted(events, key=lambda one: one.at)


def events_between(session: StoreSession, node: NodeKeys, start: str, end: str) -> list[Event]:
    """Return the events of the entries from `start` to `end`, the oldest event first."""
    entries: list[StreamEntry] = []
    while True:
        with session.client() as client:
            pipeline = client.pipeline(transaction=False)
            pipeline.xrange(node.history, start, end, count=ENTRIES_PER_READ)
            # After the entries: no number is given again, so these names include theirs.
            pipeline.hgetall(node.history_meta)
            page, meta = cast(tuple[list[StreamEntry], dict[str, str]], pipeline.execute())
        entries += page
        if len(page) < ENTRIES_PER_READ:
            break
        start = f"({page[-1][0]}"
    names = short_names(meta)
    found = (event for entry in entries for event in events_from_entry(*entry, names))
    return sorted(found, key=lambda one: one.at)


def await_event(session: StoreSession, stream: str, after: str, timeout_s: float) -> str:
    """Return the id of the last event; first wait for one after `after`, unless it is empty."""
    if after and not _wait_for_event(session, stream, after, timeout_s):
        return after
    with session.client() as client:
        last = cast(list[StreamEntry], client.xrevrange(stream, count=1))
    return last[0][0] if last else after or NO_EVENT


def _wait_for_event(session: StoreSession, stream: str, after: str, timeout_s: float) -> bool:
    """Return whether an event comes in time; each read blocks briefly, to notice a dead store."""
    deadline = time.monotonic() + timeout_s
    with session.blocking_client() as client:
        while True:
            left_s = min(deadline - time.monotonic(), MAX_BLOCK_S)
            # 0 would block without a limit.
            if client.xread({stream: after}, count=1, block=max(1, int(left_s * 1000))):
                return True
            if time.monotonic() >= deadline:
                return False
