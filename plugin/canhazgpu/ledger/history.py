"""The history of a node: a stream in Redis, read whole or waited upon."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from canhazgpu.ledger.values import Event, event_from_fields

if TYPE_CHECKING:
    import redis

PAGE = 1000
"""Events read at once; bounds the reply's size, not its correctness."""
NO_EVENT = "0-0"
SHARE_OF_TIMEOUT = 0.5
"""A blocking read must end well before the connection's own time is over."""


def read_history(client: redis.Redis, key: str, since: float) -> list[Event]:
    """Return the events from `since` (seconds since the epoch), the oldest first."""
    first = f"{max(int(since * 1000), 0)}-0"
    events: list[Event] = []
    while True:
        page = cast(list[tuple[str, dict[str, str]]], client.xrange(key, first, "+", PAGE))
        found = (event_from_fields(id_, fields) for id_, fields in page)
        events += [event for event in found if event is not None]
        if len(page) < PAGE:
            return events
        first = f"({page[-1][0]}"


def await_change(
    client: redis.Redis, key: str, after: str, timeout_s: float, answer_s: float
) -> str:
    """Return the id of the last event once there is one after `after`, else `after`.

    "" for `after` means now. `answer_s` is the longest time for one answer.
    """
    if not after:
        return _last_id(client, key)
    deadline = time.monotonic() + timeout_s
    while (left_s := deadline - time.monotonic()) > 0:
        block_ms = max(int(min(left_s, answer_s * SHARE_OF_TIMEOUT) * 1000), 1)
        if cast(Any, client).xread({key: after}, count=1, block=block_ms):
            return _last_id(client, key)
    return after


def _last_id(client: redis.Redis, key: str) -> str:
    last = cast(list[tuple[str, dict[str, str]]], client.xrevrange(key, "+", "-", 1))
    return last[0][0] if last else NO_EVENT
