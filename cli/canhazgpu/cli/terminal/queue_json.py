"""The queues of nodes as JSON; programs rely on the keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from canhazgpu.status.json_format import iso_time

if TYPE_CHECKING:
    from canhazgpu.ledger.values import Waiter
    from canhazgpu.service.queue import NodeQueue


def queues_to_dict(queues: Sequence[NodeQueue]) -> dict[str, Any]:
    """Return the queues, each with its waiters in their order; times are of the store's clock."""
    now = max((one.read_at for one in queues), default=None)
    nodes = [
        {
            "node": queue.node,
            "queue": [
                _waiter_to_dict(position, one) for position, one in enumerate(queue.waiters, 1)
            ],
        }
        for queue in queues
    ]
    return {"generated_at": iso_time(now), "nodes": nodes}


def _waiter_to_dict(position: int, waiter: Waiter) -> dict[str, Any]:
    return {
        "position": position,
        "user": waiter.user,
        "uid": waiter.uid,
        "owner": waiter.owner,
        "count": len(waiter.gpus) or waiter.count,
        "mig_profile": waiter.profile or None,
        "gpus": list(waiter.gpus),
        "since": iso_time(waiter.since),
        "pids": [one.pid for one in waiter.processes],
    }
