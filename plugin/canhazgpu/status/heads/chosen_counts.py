"""Count the GPUs of a plain node that a filter chooses by states and models, by its head; pure.

The counts of a node do not tell which of its GPUs has which model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.values import NodeHead
from canhazgpu.status.heads.chosen_gpus import ChosenGpus
from canhazgpu.status.heads.counts import NOT_PLAIN_ERRORS, CountedNode, counted_node, showing
from canhazgpu.status.heads.held_gpus import held_memory_mb
from canhazgpu.status.status_filter import StatusFilter
from canhazgpu.status.summary import UserGroup


class ChosenCounts:
    """Counts what the filter chooses of plain nodes; its partitions are not asked for."""

    def __init__(self, policy: UsagePolicy, chosen: StatusFilter) -> None:
        self._policy = policy
        self._chosen = ChosenGpus(chosen)

    def counted(self, head: NodeHead) -> CountedNode | None:
        """Return the node with these GPUs alone; None for a node that is not plain."""
        node = counted_node(head, self._policy)
        if node is None:
            return None
        try:
            return showing(node, *self._counts(node.scanned_at, head.content or {}))
        except NOT_PLAIN_ERRORS:
            return None

    def _counts(self, scanned_at: float, head: Mapping[str, Any]) -> tuple[int, UserGroup]:
        brief, held, records = head["brief"], head["held"], head["records"]
        names, chosen = brief["names"], self._chosen
        available, reserved = 0, 0
        users: dict[str, None] = {}
        for uuid, _, name, used_mb, _, processes in brief["gpus"]:
            place = held.get(uuid)
            if place is None:
                available += chosen.has_free(names[name])
                continue
            # Ignored processes' models do not count.
            held_memory_mb(processes, used_mb, self._policy)
            is_newer = records[place]["granted_ms"] / 1000 > scanned_at
            if chosen.has_held(names[name], () if is_newer else processes):
                reserved += 1
                users[records[place]["user"]] = None
        return available, UserGroup(reserved, tuple(users))
