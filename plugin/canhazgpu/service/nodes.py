"""The nodes that the ledger knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canhazgpu.status.node_status import NodeStatus


@dataclass(frozen=True, slots=True)
class NodeSummary:
    """A node as it last published itself, and how many wait for its GPUs."""

    status: NodeStatus
    waiting: int
