"""Status: every GPU, who holds it, and who uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.frozen_dataclass import dataclass

if TYPE_CHECKING:
    from canhazgpu.errors import NodeStateError, StoreError
    from canhazgpu.ledger.values import NodeView
    from canhazgpu.people.revocations import Revocation
    from canhazgpu.status.heads.counts import CountedNode
    from canhazgpu.status.heads.free_gpus import FreeNode
    from canhazgpu.status.heads.json_text import NodeText
    from canhazgpu.status.heads.node_table import NodeTable
    from canhazgpu.status.node_status import NodeStatus
    from canhazgpu.status.status_filter import StatusFilter
    from canhazgpu.status.user_filter import User


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """The nodes to show; all nodes if none is named.

    `memory_threshold_mb` replaces the configured threshold, None keeps it. With `names_caller` the
    answer names the caller. With `revocations` it has the caller's reservations that others have
    released recently. With `of_users` nothing is shown but what concerns one of them, or the named
    caller: other nodes need not be read.

    A request for many nodes may be answered with less of each. Where more than `brief_above` nodes
    are read, a node has only what tells the states of its GPUs (see `NodeView.is_brief`); so have
    nodes that the filter `shown` does not show, however few are read. Where more than
    `counts_above` nodes are to be shown, their GPUs may only be counted. None stands for no such
    number. Where `tables_suffice`, nothing but a node's table is shown, or the `wide` one. Where
    `texts_suffice`, pages may have the JSON of a node instead of the node. Unless it `scans`, this
    node is shown as any other one: as it was last published.
    """

    nodes: tuple[str, ...] = ()
    memory_threshold_mb: int | None = None
    names_caller: bool = False
    revocations: bool = False
    brief_above: int | None = None
    shown: StatusFilter | None = None
    counts_above: int | None = None
    tables_suffice: bool = False
    wide: bool = False
    texts_suffice: bool = False
    of_users: tuple[User, ...] | None = None
    scans: bool = True


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """What was read of the nodes: at least one, each in one of five fields and sorted by name.

    `nodes` have the status of each GPU, `counted` only numbers of GPUs, `tables` the GPUs that are
    to be shown as texts, and `texts` the node's JSON. Of the nodes `passed_over`, the request's
    filter shows nothing.

    `store_fault` is the error of a store that did not serve, None if it did. Then the answer has
    this node alone: its scan, and the reservations that its hooks last published. `book_fault` is
    the error of this node's book, None if it was read: with it, nobody knows what the node's jobs
    hold. `scan_fault` says why this node's scan as a whole failed, None if it did not. `caller` is
    None unless the request has `names_caller`.
    """

    nodes: tuple[NodeStatus, ...]
    scan_fault: str | None = None
    caller: User | None = None
    revocations: tuple[Revocation, ...] = ()
    store_fault: StoreError | None = None
    book_fault: NodeStateError | None = None
    counted: tuple[CountedNode, ...] = ()
    tables: tuple[FreeNode | NodeTable, ...] = ()
    texts: tuple[NodeText, ...] = ()
    passed_over: tuple[CountedNode | NodeView, ...] = ()

    @property
    def read_at(self) -> float:
        """The time at which the first nodes were read."""
        read = (self.nodes, self.counted, self.tables, self.texts, self.passed_over)
        return next(some for some in read if some)[0].read_at

    @property
    def node_count(self) -> int:
        """How many nodes were read."""
        read = (self.nodes, self.counted, self.tables, self.texts, self.passed_over)
        return sum(map(len, read))
