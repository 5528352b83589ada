"""Read the queues of nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.garbage_collection import paused_collector
from canhazgpu.in_process.node_gpus import refuse_unknown_node
from canhazgpu.people.holdings import current_waiters, gpu_display_indices
from canhazgpu.service.queue import NodeQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.ledger.values import NodeView
    from canhazgpu.service.queue import QueueRequest


def read_queues(adapters: Adapters, request: QueueRequest) -> tuple[NodeQueue, ...]:
    """See `NodeService.queue`."""
    ledger = adapters.reader(adapters.effective_config().config)
    if request.nodes:
        views = _read_views(ledger, tuple(dict.fromkeys(request.nodes)))
        for view in views:
            refuse_unknown_node(view)
        return tuple(map(_queue_of, views))
    read_at, queues = ledger.read_queues()
    # The scan is needed where a waiter names GPUs: people know them by their indices.
    naming = sorted(name for name, queue in queues.items() if any(one.gpus for one in queue))
    found = {view.node: _queue_of(view) for view in _read_views(ledger, naming)}
    return tuple(
        found.get(name) or NodeQueue(name, read_at, queues[name], {}) for name in sorted(queues)
    )


def _read_views(ledger: Ledger, nodes: Sequence[str]) -> list[NodeView]:
    with paused_collector():
        pages = ledger.read_node_pages(nodes, brief_above=0) if nodes else ()
        return [view for page in pages for view in page]


def _queue_of(view: NodeView) -> NodeQueue:
    return NodeQueue(
        view.node,
        view.read_at,
        current_waiters(view),
        gpu_display_indices(view.scan.gpus if view.scan else ()),
    )
