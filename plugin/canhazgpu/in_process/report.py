"""Report who had GPUs reserved, and for how long.

Nodes count that by day. Of a node that does not, or whose count is not complete yet, the history is
read. So is that of nodes that are named, if there are several: what they count does not say which
reservation is on several of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.errors import UnknownNameError
from canhazgpu.garbage_collection import paused_collector
from canhazgpu.ledger.usage import DAY_S
from canhazgpu.report.held_time import TimeSpan, held_times
from canhazgpu.report.node_rows import used_on_node
from canhazgpu.report.totals import build_report
from canhazgpu.service.history import ReportAnswer

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.report.held_time import HeldTime
    from canhazgpu.report.node_rows import UsedOnNode
    from canhazgpu.report.totals import Report
    from canhazgpu.service.history import ReportRequest

SEVERAL = 2
"""From so many named nodes on their histories are read."""


def read_report(adapters: Adapters, request: ReportRequest) -> ReportAnswer:
    """See `NodeService.report`."""
    config = adapters.effective_config().config
    ledger = adapters.reader(config)
    with paused_collector():
        report = _read(ledger, request, min(request.days, config.store.history_days))
    return ReportAnswer(report, config.store.history_days)


def _read(ledger: Ledger, request: ReportRequest, days: int) -> Report:
    named = tuple(dict.fromkeys(request.nodes))
    usage = ledger.read_usage(days, named or None)
    span = TimeSpan(usage.first_day * DAY_S, usage.read_at)
    used: list[UsedOnNode] = []
    uncounted = list(usage.uncounted)
    for one in usage.counted:
        found = used_on_node(one, span) if len(named) < SEVERAL else None
        if found is None:
            uncounted.append(one.node)
        else:
            used.append(found.counted_here() if named else found)
    holds = _read_histories(ledger, span, uncounted, named) if uncounted else []
    return build_report(holds, span, request.users, used, wasted=request.wasted)


def _read_histories(
    ledger: Ledger, span: TimeSpan, nodes: Sequence[str], named: Collection[str]
) -> list[HeldTime]:
    """Return the held times of nodes that do not count; raises `UnknownNameError`."""
    found: list[HeldTime] = []
    for view in ledger.read_nodes(nodes):
        # Read after the view: a release between the two reads is then in the history.
        events = ledger.history(view.node, span.since)
        if view.node in named and not events and not view.is_known:
            raise UnknownNameError(
                f"the ledger knows no node {view.node!r}; 'canhazgpu status' shows all it knows",
                kind="node",
            )
        found += held_times(view, events, span)
    return found
