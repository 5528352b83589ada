"""`canhazgpu admin nodes`: every node that the ledger knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option
from canhazgpu.cli.terminal.output import column_lines
from canhazgpu.durations import short_duration_text
from canhazgpu.errors import StoreError
from canhazgpu.status.json_format import iso_time

if TYPE_CHECKING:
    from canhazgpu.service.nodes import NodeSummary

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


def _counts(summary: NodeSummary) -> dict[str, int]:
    counts = summary.counts
    return {
        "available": counts.available,
        "in_use": counts.reserved.count,
        "unreserved": counts.unreserved.count,
        "quarantined": counts.quarantined,
        "unknown": counts.unknown,
        "waiting": counts.waiting,
    }


def _row(summary: NodeSummary) -> Sequence[str]:
    age = "never"
    if summary.scanned_at is not None:
        age = f"{short_duration_text(summary.read_at - summary.scanned_at)} ago"
    return (
        summary.counts.node,
        str(summary.counts.total),
        *map(str, _counts(summary).values()),
        age,
        summary.fault or "" if summary.scanned_at is not None else "",
    )


def _node_to_dict(summary: NodeSummary) -> dict[str, Any]:
    age_s = None
    if summary.scanned_at is not None:
        age_s = round(max(summary.read_at - summary.scanned_at, 0.0), 3)
    return {
        "node": summary.counts.node,
        "gpus": summary.counts.total,
        **_counts(summary),
        "scanned_at": iso_time(summary.scanned_at),
        "scan_age_s": age_s,
        "fault": summary.fault,
    }
