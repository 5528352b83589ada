"""Read the queues of many nodes, most of which are empty: those cost a command together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from canhazgpu.ledger.record_json import queue_from_hash
from canhazgpu.ledger.store import keys
from canhazgpu.ledger.store.nodes.node_views import existing_keys
from canhazgpu.ledger.values import Waiter

if TYPE_CHECKING:
    import redis

QUEUES_PER_READ = 1000
"""Queues per pipeline; limits the size of one reply, not of the result."""


def read_queues(
    client: redis.Redis, names: Sequence[str], prefix: str, *, in_cluster: bool
) -> tuple[float, dict[str, tuple[Waiter, ...]]]:
    """See `Ledger.read_queues`, of these nodes."""
    seconds, microseconds = client.time()
    read_at = seconds + microseconds / 1e6
    queues = {name: keys.node_key(name, "queue", prefix) for name in names}
    existing = existing_keys(client, list(queues.values()), in_cluster=in_cluster)
    waiting = [name for name, key in queues.items() if key in existing]
    found: dict[str, tuple[Waiter, ...]] = dict.fromkeys(names, ())
    for first in range(0, len(waiting), QUEUES_PER_READ):
        some = waiting[first : first + QUEUES_PER_READ]
        pipeline = client.pipeline(transaction=False)
        for name in some:
            pipeline.hgetall(queues[name])
        for name, records in zip(some, pipeline.execute(), strict=True):
            found[name] = queue_from_hash(records, read_at)
    return read_at, found
