"""`canhazgpu admin nodes`: every node that the ledger knows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.options import json_option
from canhazgpu.cli.output import column_lines
from canhazgpu.gpu.usage import GpuState
from canhazgpu.people.holdings import waiting
from canhazgpu.status.json_form import time_text
from canhazgpu.status.model import NodeStatus, node_status
from canhazgpu.status.times import short_duration_text

if TYPE_CHECKING:
    from canhazgpu.ledger.values import NodeView

COUNTED = {
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


@click.command()
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
    from canhazgpu.probe.node_probe import usage_policy  # noqa: PLC0415 - not for the help

    config = app.effective().config
    policy = usage_policy(config.validation)
    views = app.reader(config.store).look()
    found = [(view, node_status(view, policy)) for view in views]
    if as_json:
        click.echo(json.dumps({"nodes": [_form(*one) for one in found]}, indent=2))
    elif not found:
        click.echo("no node has published itself: 'canhazgpu validate --publish' on a node does")
    else:
        for line in column_lines(HEADER, [_row(*one) for one in found]):
            click.echo(line)


def _counts(status: NodeStatus) -> dict[str, int]:
    states = Counter(gpu.state for gpu in status.gpus)
    return {name: states[state] for name, state in COUNTED.items()}


def _row(view: NodeView, status: NodeStatus) -> Sequence[str]:
    age = "never"
    if status.scanned_at is not None:
        age = f"{short_duration_text(status.read_at - status.scanned_at)} ago"
    return (
        view.node,
        str(len(status.gpus)),
        *map(str, _counts(status).values()),
        str(len(waiting(view))),
        age,
        status.fault or "" if status.scanned_at is not None else "",
    )


def _form(view: NodeView, status: NodeStatus) -> dict[str, Any]:
    age_s = None
    if status.scanned_at is not None:
        age_s = round(max(status.read_at - status.scanned_at, 0.0), 3)
    return {
        "node": view.node,
        "gpus": len(status.gpus),
        **_counts(status),
        "waiting": len(waiting(view)),
        "scanned_at": time_text(status.scanned_at),
        "scan_age_s": age_s,
        "fault": status.fault,
    }
