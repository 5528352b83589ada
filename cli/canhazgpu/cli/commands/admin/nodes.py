"""`canhazgpu admin nodes`: every node that the ledger knows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option
from canhazgpu.cli.terminal.output import column_lines
from canhazgpu.durations import short_duration_text
from canhazgpu.errors import StoreError
from canhazgpu.gpu.usage import GpuState
from canhazgpu.status.json_format import iso_time

if TYPE_CHECKING:
    from canhazgpu.service.nodes import NodeSummary
    from canhazgpu.status.node_status import NodeStatus

COUNTED_STATES = {
    "available": GpuState.AVAILABLE,
    "in_use": GpuState.RESERVED,
    "unreserved": GpuState.UNRESERVED,
    "quarantined": GpuState.QUARANTINED,
    "unknown": GpuState.UNKNOWN,
}
HEADER = (
    *("NODE", "GPUS", "AVAILABLE", "IN USE", "UNRESERVED", "QUARANTINED", "UNKNOWN"),
    *("WAITING", "SCANNED", "FAULT"),
)


@click.command(epilog=exit_codes(StoreError))
@json_option
@click.pass_obj
def nodes(app: App, as_json: bool) -> None:
    """Show every node that the ledger knows, as it last published itself.

    No GPU is scanned. A node whose scan is old no longer runs its health check, or is
    down; one that is gone for good is removed with 'canhazgpu admin forget'.

    \b
    Examples:
      canhazgpu admin nodes
      canhazgpu admin nodes --json | jq '.nodes[] | select(.unreserved > 0) | .node'
    """  # noqa: D301 - click reads the character: keep these lines
    found = app.service().nodes()
    if as_json:
        click.echo(json.dumps({"nodes": [_node_to_dict(one) for one in found]}, indent=2))
    elif not found:
        click.echo("no node has published itself: 'canhazgpu validate --publish' on a node does")
    else:
        for line in column_lines(HEADER, [_row(one) for one in found]):
            click.echo(line)


def _counts(status: NodeStatus) -> dict[str, int]:
    states = Counter(gpu.state for gpu in status.gpus)
    return {name: states[state] for name, state in COUNTED_STATES.items()}


def _row(summary: NodeSummary) -> Sequence[str]:
    status = summary.status
    age = "never"
    if status.scanned_at is not None:
        age = f"{short_duration_text(status.read_at - status.scanned_at)} ago"
    return (
        status.node,
        str(len(status.gpus)),
        *map(str, _counts(status).values()),
        str(summary.waiting),
        age,
        status.fault or "" if status.scanned_at is not None else "",
    )


def _node_to_dict(summary: NodeSummary) -> dict[str, Any]:
    status = summary.status
    age_s = None
    if status.scanned_at is not None:
        age_s = round(max(status.read_at - status.scanned_at, 0.0), 3)
    return {
        "node": status.node,
        "gpus": len(status.gpus),
        **_counts(status),
        "waiting": summary.waiting,
        "scanned_at": iso_time(status.scanned_at),
        "scan_age_s": age_s,
        "fault": status.fault,
    }
