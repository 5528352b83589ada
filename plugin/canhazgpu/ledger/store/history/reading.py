"""Read a node's history, a stream of events, and wait for its next event.

Every change that a waiter may wait for is an event, so a blocking read of the stream wakes it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from canhazgpu.ledger.store.history.entries import events_from_entry, short_names
from canhazgpu.ledger.store.history.stream_id import NO_ENTRY
from canhazgpu.ledger.store.keys import NodeKeys
from canhazgpu.ledger.store.session import DAY_MS, MAX_BLOCK_S, StoreSession
from canhazgpu.ledger.values import Event

if TYPE_CHECKING:
    import redis

ENTRIES_PER_READ = 1000
"""Entries per read; limits the size of one reply, not of the result."""
FEW = 20
"""Entries of a node that are read with those of many others."""
MAX_NUMBER = 2**64 - 1
"""The last number of entries of one millisecond."""

StreamEntry = tuple[str, dict[str, str]]


def read_history(session: StoreSession, node: NodeKeys, since: float) -> list[Event]:
    """Return the events whose own time is `since` or later, the oldest first."""
    # An event's own time is never later than its entry's: an expiry is written when it is noticed.
    events = events_between(session, node, f"{max(int(since * 1000), 0)}-0", "+")
    return [one for one in events if one.at >= since]


def read_recent(
    session: StoreSession, nodes: Mapping[str, NodeKeys], since: float
) -> dict[str, list[Event]]:
    """Return the same of each of these nodes by its name; of one with many events by itself."""
    # Entries are asked for that come after an id: after the last one of the millisecond before.
    before_ms = int(since * 1000) - 1
    after = NO_ENTRY if before_ms < 0 else f"{before_ms}-{MAX_NUMBER}"
    with session.client() as client:
        afters = {one.history: after for one in nodes.values()}
        pages = entries_after(client, afters, FEW, in_cluster=session.in_cluster)
        few = [name for name, one in nodes.items() if 0 < len(pages.get(one.history, ())) < FEW]
        pipeline = client.pipeline(transaction=False)
        for name in few:
            pipeline.hgetall(nodes[name].history_meta)
        tables = dict(zip(few, pipeline.execute() if few else (), strict=True))
    found: dict[str, list[Event]] = {}
    for name, one in nodes.items():
        if name in tables:
            events = _events_of(pages[one.history], tables[name])
            found[name] = [event for event in events if event.at >= since]
        else:
            found[name] = read_history(session, one, since) if one.history in pages else []
    return found


def entries_after(
    client: redis.Redis, last_entries: Mapping[str, str], count: int, *, in_cluster: bool
) -> dict[str, list[StreamEntry]]:
    """Return so many entries of those of the streams that have some after the ids given."""
    pipeline = client.pipeline(transaction=False)
    for streams in streams_asked(last_entries, in_cluster):
        pipeline.xread(cast(Any, streams), count=count)
    return {key: entries for answer in pipeline.execute() for key, entries in answer or ()}


def streams_asked(last_entries: Mapping[str, str], in_cluster: bool) -> list[Mapping[str, str]]:
    """Return what is asked for by one command each."""
    # The streams of a cluster are on several servers.
    if in_cluster:
        return [{key: last} for key, last in last_entries.items()]
    return [last_entries] if last_entries else []


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
    return _events_of(entries, meta)


def _events_of(entries: Sequence[StreamEntry], meta: Mapping[str, str]) -> list[Event]:
    """Return the events of the entries, the oldest first."""
    names = short_names(meta)
    found = (event for entry in entries for event in events_from_entry(*entry, names))
    return sorted(found, key=lambda one: one.at)


def await_event(session: StoreSession, stream: str, after: str, timeout_s: float) -> str:
    """Return the id of the last event; first wait for one after `after`, unless it is empty."""
    if after and not _wait_for_event(session, stream, after, timeout_s):
        return after
    with session.client() as client:
        last = cast(list[StreamEntry], client.xrevrange(stream, count=1))
    return last[0][0] if last else after or NO_ENTRY


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
