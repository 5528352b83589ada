"""Nodes by their heads, for summaries: counted where that is plain, else as views to be judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.ledger.store.nodes.node_heads import view_of_head
from canhazgpu.status.head_counts import CountedNode, counted_node

if TYPE_CHECKING:
    from canhazgpu.gpu.usage import UsagePolicy
    from canhazgpu.ledger.values import NodeHead, NodeView

__all__ = ["CountedNode", "counted_or_view"]


def counted_or_view(head: NodeHead, policy: UsagePolicy) -> CountedNode | NodeView | None:
    """Return the node; None where it is to be read in full."""
    if head.content is None:
        return None
    counted = counted_node(head, policy)
    return view_of_head(head) if counted is None else counted
