"""`canhazgpu queue`: who waits for GPUs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.node_gpus import refuse_unknown
from canhazgpu.cli.options import json_option, nodes_option
from canhazgpu.cli.output import column_lines
from canhazgpu.people.holdings import gpu_names, gpu_places, waiting
from canhazgpu.status.json_form import time_text
from canhazgpu.status.times import duration_text

if TYPE_CHECKING:
    from canhazgpu.ledger.values import NodeView, Waiter

HEADER = ("NODE", "POSITION", "USER", "WAITS FOR", "TYPE", "WAITING")


@click.command()
@nodes_option("Show")
@json_option
@click.pass_obj
def queue(app: App, nodes: Sequence[str], as_json: bool) -> None:
    """Show who waits for GPUs, the next one first.

    Each node has its own queue, first come first served. Somebody who gave no sign of
    life for its lease has left, and is not shown.

    \b
    Examples:
      canhazgpu queue
      canhazgpu queue --node gpu01 --json
    """  # noqa: D301 - click reads the character: keep these lines
    config = app.effective().config
    views = app.reader(config.store).look(tuple(dict.fromkeys(nodes)) or None)
    for view in views if nodes else ():
        refuse_unknown(view)
    if as_json:
        click.echo(_json(views))
        return
    rows = [row for view in views for row in _rows(view)]
    for line in column_lines(HEADER, rows) if rows else ("nobody waits",):
        click.echo(line)


def _rows(view: NodeView) -> Iterable[tuple[str, ...]]:
    places = gpu_places(view.scan.gpus if view.scan else ())
    for position, one in enumerate(waiting(view), 1):
        type_ = one.owner.partition(":")[0]
        waited = duration_text(view.read_at - one.since)
        yield (view.node, str(position), one.user, _wanted(one, places), type_, waited)


def _wanted(waiter: Waiter, places: dict[str, str]) -> str:
    if waiter.gpus:
        return gpu_names(waiter.gpus, places)
    return f"{waiter.count} GPU" + ("" if waiter.count == 1 else "s")


def _json(views: Sequence[NodeView]) -> str:
    now = max((view.read_at for view in views), default=None)
    nodes = [
        {
            "node": view.node,
            "queue": [_waiter(position, one) for position, one in enumerate(waiting(view), 1)],
        }
        for view in views
    ]
    return json.dumps({"generated_at": time_text(now), "nodes": nodes}, indent=2)


def _waiter(position: int, waiter: Waiter) -> dict[str, Any]:
    return {
        "position": position,
        "user": waiter.user,
        "uid": waiter.uid,
        "owner": waiter.owner,
        "count": len(waiter.gpus) or waiter.count,
        "gpus": list(waiter.gpus),
        "since": time_text(waiter.since),
        "pids": [one.pid for one in waiter.processes],
    }
