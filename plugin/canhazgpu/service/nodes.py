"""The nodes that the ledger knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canhazgpu.status.node_status import NodeStatus


@dataclass(frozen=True, slots=True)
class NodeSummary:
    """A node by its last published scan; `waiting` counts the waiters in its queue."""

    status: NodeStatus
    waiting: int
