"""Revoke what a job holds on all its nodes.

The index says where the job may be, each node's records whether it is. Nodes that are to do it
themselves are all given their orders before the first answer is waited for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from canhazgpu.config.host_role import has_own_gpus
from canhazgpu.errors import CanhazgpuError, OrderInterruptedError, StoreError
from canhazgpu.in_process.orders.routing import order_for
from canhazgpu.in_process.release import matches, revoke
from canhazgpu.ledger.store.indexes.hints import is_job_id
from canhazgpu.node.identity import node_name
from canhazgpu.node.users import require_administrator
from canhazgpu.people.holdings import holdings
from canhazgpu.service.holdings import ReleaseAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from canhazgpu.allocation.progress import Progress
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.service.holdings import RevokeRequest


def revoke_job(
    adapters: Adapters, request: RevokeRequest, progress: Progress
) -> tuple[ReleaseAnswer, ...]:
    """See `NodeService.revoke_job`."""
    require_administrator(adapters.caller(), "release what others hold")
    waiting: list[Callable[[], ReleaseAnswer]] = []
    nodes, fault = _nodes_of_job(adapters, request)
    for node in nodes:
        waiting.append(_begun(adapters, replace(request, node=node), progress))
    answers = tuple(answer() for answer in waiting)
    return answers if fault is None else (*answers, fault)


def _begun(
    adapters: Adapters, request: RevokeRequest, progress: Progress
) -> Callable[[], ReleaseAnswer]:
    """Give the node its order, or do it now; return what returns the answer."""
    node = str(request.node)
    try:
        command = order_for(adapters, request, progress)
        if command is None:
            done = revoke(adapters, request)
            return lambda: done
        command.give(replace(request, node=None), adapters.caller())
    except CanhazgpuError as exc:
        failed = ReleaseAnswer(node, {}, (), fault=exc)
        return lambda: failed

    def answer() -> ReleaseAnswer:
        try:
            return command.outcome(ReleaseAnswer)
        except OrderInterruptedError:
            raise
        except CanhazgpuError as exc:
            return ReleaseAnswer(node, {}, (), fault=exc)

    return answer


def _nodes_of_job(
    adapters: Adapters, request: RevokeRequest
) -> tuple[Sequence[str], ReleaseAnswer | None]:
    """Return the nodes where the job holds GPUs; without the store this one, and its error."""
    config = adapters.effective_config().config
    here = node_name(config.node, adapters.environ)
    job_id = request.job_id
    if not is_job_id(job_id):
        return [here], None
    ledger = adapters.reader(config)
    try:
        found = ledger.find_job(job_id)
        views = ledger.read_nodes(found.nodes) if found.nodes else []
    except StoreError as exc:
        if not has_own_gpus(config):
            raise
        return [here], ReleaseAnswer("", {}, (), fault=exc)
    return [view.node for view in views if holdings(view, matches(request))], None
