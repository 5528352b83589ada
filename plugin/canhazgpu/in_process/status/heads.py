"""Nodes of a large cluster: counted where that suffices, else as views to be judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from canhazgpu.ledger.store.nodes.node_heads import view_of_head
from canhazgpu.status.heads.counts import CountedNode, counted_by_counts, counted_node
from canhazgpu.status.heads.free_gpus import FreeNode, free_node

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from canhazgpu.gpu.usage import UsagePolicy
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.ledger.values import NodeCounts, NodeHead, NodeView


class NodesRead(NamedTuple):
    """Each node is in one of the lists; `free` has those whose counts list their free GPUs."""

    counted: list[CountedNode]
    views: list[NodeView]
    free: dict[str, FreeNode]


def read_counted(
    store: Ledger,
    policy: UsagePolicy,
    nodes: Sequence[str] | None = None,
    *,
    in_full: Callable[[list[str]], list[NodeView]],
    but_for: str = "",
    lists_free: bool = False,
) -> NodesRead:
    """Return these nodes, or all that are listed.

    What is neither counted nor told by a head is read `in_full`, and so is the one that is named
    by `but_for`. Free GPUs are told where somebody `lists_free` ones.
    """
    found = NodesRead([], [], {})
    rest: list[str] = []

    def count(one: NodeCounts) -> CountedNode | None:
        if one.node == but_for:
            return None
        known = counted_by_counts(one, policy)
        if lists_free and known is not None and known.counts.available:
            listed = free_node(known, one.content)
            if listed is not None:
                found.free[one.node] = listed
        return known

    for one in store.read_counts_or_heads(count, nodes):
        if isinstance(one, CountedNode):
            found.counted.append(one)
            continue
        known = None if one.node == but_for else _counted_or_view(one, policy)
        if isinstance(known, CountedNode):
            found.counted.append(known)
        elif known is not None:
            found.views.append(known)
        else:
            rest.append(one.node)
    if rest:
        found.views.extend(in_full(rest))
    return found


def _counted_or_view(head: NodeHead, policy: UsagePolicy) -> CountedNode | NodeView | None:
    """Return the node; None where it is to be read in full."""
    if head.content is None:
        return None
    counted = counted_node(head, policy)
    return view_of_head(head) if counted is None else counted
