"""The nodes that the ledger knows: summaries of them, and forgetting one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.allocation.holder_text import holder_name
from canhazgpu.durations import short_duration_text
from canhazgpu.errors import InputError
from canhazgpu.garbage_collection import paused_collector
from canhazgpu.in_process.node_gpus import NodeGpus
from canhazgpu.node.users import require_administrator
from canhazgpu.people.holdings import holdings, scanned_and_ledger_gpus
from canhazgpu.service.nodes import CountersAnswer, NodeSummary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.orders import OrderReader
    from canhazgpu.ledger.values import NodeView

GONE_AFTER_S = 1800.0
"""A node whose health check runs, or an agent, shows itself more often."""


def read_counters(adapters: Adapters) -> Iterator[CountersAnswer]:
    """See `NodeService.counters`."""
    from canhazgpu.ledger.store.connect import Role  # noqa: PLC0415 - only for metrics
    from canhazgpu.ledger.store.totals.counters import NodeCounters  # noqa: PLC0415

    config = adapters.effective_config().config
    for texts in NodeCounters(config.store, Role.READ).read():
        yield CountersAnswer(texts)


def node_summaries(adapters: Adapters) -> tuple[NodeSummary, ...]:
    """See `NodeService.nodes`."""
    from canhazgpu.in_process.status.heads import read_counted  # noqa: PLC0415 - forgetting a node needs none of them
    from canhazgpu.probe.node_probe import usage_policy  # noqa: PLC0415
    from canhazgpu.status.node_status import node_status  # noqa: PLC0415
    from canhazgpu.status.summary import summarize  # noqa: PLC0415

    config = adapters.effective_config().config
    policy, ledger = usage_policy(config.validation), adapters.reader(config)
    with paused_collector():
        nodes = read_counted(ledger, policy, in_full=ledger.read_nodes)
        found = [
            NodeSummary(one.counts, one.read_at, one.scanned_at, None) for one in nodes.counted
        ]
        for status in (node_status(view, policy) for view in nodes.views):
            counts = summarize(status)
            found.append(NodeSummary(counts, status.read_at, status.scanned_at, status.fault))
    return tuple(sorted(found, key=lambda one: one.counts.node))


def forget_node(adapters: Adapters, node: str, *, releases: bool = False) -> None:
    """See `NodeService.forget_node`."""
    caller = adapters.caller()
    require_administrator(caller, "forget a node")
    config = adapters.effective_config().config
    ledger, orders = adapters.writer_of(node, config), adapters.orders(config.store)
    (view,) = ledger.read_nodes([node])
    if releases:
        _refuse_living(view, orders.reader(node))
        for one in holdings(view, lambda _: True):
            ledger.release(node, one.claim.owner, "the node was forgotten", one.gpus, caller.user)
    else:
        _refuse_reserved(
            NodeGpus(view, scanned_and_ledger_gpus(view, view.scan.gpus if view.scan else ()))
        )
    orders.forget(node)
    if not ledger.forget_node(node):
        raise InputError(
            f"the ledger knows no node {node!r}; 'canhazgpu admin nodes' shows all it knows"
        )


def _refuse_living(view: NodeView, reader: OrderReader | None) -> None:
    """Raise `InputError` for a node that was seen lately: what is reserved there may be in use."""
    ages = [reader.age_s] if reader else []
    if view.scanned_at is not None:
        ages.append(view.read_at - view.scanned_at)
    if ages and min(ages) < GONE_AFTER_S:
        age = short_duration_text(max(min(ages), 0.0))
        raise InputError(
            f"{view.node} was seen {age} ago, and counts as gone"
            f" after {short_duration_text(GONE_AFTER_S)}: 'canhazgpu admin release --node"
            f" {view.node}' has it release what is reserved"
        )


def _refuse_reserved(gpus: NodeGpus) -> None:
    held = holdings(gpus.view, lambda _: True)
    if held:
        who = "; ".join(f"{gpus.names(one.gpus)} by {holder_name(one.claim)}" for one in held)
        ids = ",".join(sorted(gpu for one in held for gpu in one.gpus))
        raise InputError(
            f"{gpus.view.node} has reserved GPUs ({who}): release them first with"
            f" 'canhazgpu admin release --node {gpus.view.node} --gpu-ids {ids} --reason ...';"
            " of a node that is gone for good, add --release"
        )
