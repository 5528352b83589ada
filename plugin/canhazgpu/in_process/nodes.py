"""The nodes that the ledger knows: summaries of them, and forgetting one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.allocation.holder_text import holder_name
from canhazgpu.errors import InputError
from canhazgpu.in_process.node_gpus import NodeGpus
from canhazgpu.node.users import require_administrator
from canhazgpu.people.holdings import current_waiters, holdings, scanned_and_ledger_gpus
from canhazgpu.service.nodes import NodeSummary

if TYPE_CHECKING:
    from canhazgpu.in_process.adapters import Adapters


def node_summaries(adapters: Adapters) -> tuple[NodeSummary, ...]:
    """See `NodeService.nodes`."""
    from canhazgpu.probe.node_probe import usage_policy  # noqa: PLC0415 - forgetting a node needs neither
    from canhazgpu.status.node_status import node_status  # noqa: PLC0415

    config = adapters.effective_config().config
    policy = usage_policy(config.validation)
    return tuple(
        NodeSummary(node_status(view, policy), len(current_waiters(view)))
        for view in adapters.reader(config).read_nodes()
    )


def forget_node(adapters: Adapters, node: str) -> None:
    """See `NodeService.forget_node`."""
    require_administrator(adapters.caller(), "forget a node")
    config = adapters.effective_config().config
    ledger = adapters.writer(config)
    (view,) = ledger.read_nodes([node])
    _refuse_reserved(
        NodeGpus(view, scanned_and_ledger_gpus(view, view.scan.gpus if view.scan else ()))
    )
    if not ledger.forget_node(node):
        raise InputError(
            f"the ledger knows no node {node!r}; 'canhazgpu admin nodes' shows all it knows"
        )


def _refuse_reserved(gpus: NodeGpus) -> None:
    held = holdings(gpus.view, lambda _: True)
    if held:
        who = "; ".join(f"{gpus.names(one.gpus)} by {holder_name(one.claim)}" for one in held)
        ids = ",".join(sorted(gpu for one in held for gpu in one.gpus))
        raise InputError(
            f"{gpus.view.node} has reserved GPUs ({who}): release them first with"
            f" 'canhazgpu admin release --node {gpus.view.node} --gpu-ids {ids} --reason ...'"
        )
