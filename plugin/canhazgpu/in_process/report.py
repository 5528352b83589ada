"""Report who had GPUs reserved, and for how long, from the nodes' histories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.errors import InputError
from canhazgpu.report.held_time import TimeSpan, held_times
from canhazgpu.report.totals import build_report
from canhazgpu.service.history import ReportAnswer

if TYPE_CHECKING:
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.service.history import ReportRequest

DAY_S = 86400.0


def read_report(adapters: Adapters, request: ReportRequest) -> ReportAnswer:
    """See `NodeService.report`."""
    config = adapters.effective_config().config
    ledger = adapters.reader(config)
    views = ledger.read_nodes(tuple(dict.fromkeys(request.nodes)) or None)
    until = max((view.read_at for view in views), default=0.0)
    span = TimeSpan(until - request.days * DAY_S, until)
    hold_times = []
    for view in views:
        # Read after the view: a release between the two reads is then in the history.
        events = ledger.history(view.node, span.since)
        if request.nodes and not events and not view.is_known:
            raise InputError(
                f"the ledger knows no node {view.node!r}; 'canhazgpu status' shows all it knows"
            )
        hold_times += held_times(view, events, span)
    return ReportAnswer(build_report(hold_times, span, request.users), config.store.history_days)
