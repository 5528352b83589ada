"""Read what the nodes have counted by ``scripts/shared/usage.lua``: one command for each node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from canhazgpu.ledger.gpu_use import USE_FIELD
from canhazgpu.ledger.store.history.stream_id import NO_ENTRY, stream_position
from canhazgpu.ledger.store.keys import node_key
from canhazgpu.ledger.usage import DAY_S, NodeUsage, UsageRead
from canhazgpu.ledger.values import RECORD_ERRORS

if TYPE_CHECKING:
    import redis

NODES_PER_READ = 1000
"""Nodes per pipeline; limits the size of one reply, not of the result."""

_FIELDS = ("total", "held", "day", "from", "through", f"{USE_FIELD}total", f"{USE_FIELD}day")


def read_usage(client: redis.Redis, names: Sequence[str], prefix: str, days: int) -> UsageRead:
    """See `Ledger.read_usage`."""
    counted: list[NodeUsage] = []
    uncounted: list[str] = []
    seconds, microseconds = client.time()
    first_day = seconds // DAY_S - days
    fields = str(first_day - 1), f"{USE_FIELD}{first_day - 1}", *_FIELDS
    for start in range(0, len(names), NODES_PER_READ):
        some = names[start : start + NODES_PER_READ]
        pipeline = client.pipeline(transaction=False)
        for name in some:
            pipeline.hmget(node_key(name, "usage", prefix), *fields)
        for name, row in zip(some, pipeline.execute(raise_on_error=False), strict=True):
            usage = _usage_from(name, row, first_day)
            if usage is None:
                uncounted.append(name)
            else:
                counted.append(usage)
    read_at = seconds + microseconds / 1e6
    return UsageRead(read_at, first_day, tuple(counted), tuple(uncounted))


def _usage_from(name: str, row: Any, first_day: int) -> NodeUsage | None:
    """Return the node's usage; None where it has none, or not yet all that came before."""
    if isinstance(row, Exception) or row[4] is None:
        return None
    before, use_before, total, held, day, counted_from, through, use, use_day = row
    try:
        if stream_position(through or NO_ENTRY) < stream_position(counted_from or NO_ENTRY):
            return None
        if before is None:
            # A node that nothing has changed since has no totals of its own for the day.
            before = total if int(day) < first_day else None
        totals = json.loads(before or "{}"), json.loads(total or "{}"), json.loads(held or "[]")
        if use is None:
            return NodeUsage(name, *totals)
        if use_before is None:
            use_before = use if int(use_day) < first_day else None
        return NodeUsage(name, *totals, json.loads(use_before or "{}"), json.loads(use))
    except RECORD_ERRORS:
        return None
