"""The nodes that the ledger knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from canhazgpu.frozen_dataclass import dataclass

if TYPE_CHECKING:
    from canhazgpu.status.summary import NodeSummary as NodeCounts


@dataclass(frozen=True, slots=True)
class NodeSummary:
    """A node by its last published scan; times in seconds since the epoch, by the store's clock."""

    counts: NodeCounts
    read_at: float
    scanned_at: float | None
    fault: str | None


@dataclass(frozen=True, slots=True)
class CountersAnswer:
    """What some nodes have counted of themselves: JSON by node, of which nothing is checked."""

    texts: Mapping[str, str]
