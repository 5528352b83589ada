"""Read the queues of nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.garbage_collection import paused_collector
from canhazgpu.in_process.node_gpus import refuse_unknown_node
from canhazgpu.people.holdings import current_waiters, gpu_display_indices
from canhazgpu.service.queue import NodeQueue

if TYPE_CHECKING:
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.service.queue import QueueRequest


def read_queues(adapters: Adapters, request: QueueRequest) -> tuple[NodeQueue, ...]:
    """See `NodeService.queue`."""
    config = adapters.effective_config().config
    pages = adapters.reader(config).read_node_pages(
        tuple(dict.fromkeys(request.nodes)) or None, brief_above=0
    )
    with paused_collector():
        views = [view for page in pages for view in page]
    for view in views if request.nodes else ():
        refuse_unknown_node(view)
    return tuple(
        NodeQueue(
            view.node,
            view.read_at,
            current_waiters(view),
            gpu_display_indices(view.scan.gpus if view.scan else ()),
        )
        for view in views
    )
