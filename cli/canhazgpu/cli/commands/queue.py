"""`canhazgpu queue`: show who waits for GPUs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option, nodes_option
from canhazgpu.cli.terminal.output import column_lines
from canhazgpu.cli.terminal.queue_json import queues_to_dict
from canhazgpu.durations import duration_text
from canhazgpu.errors import StoreError
from canhazgpu.people.holdings import gpu_list_text
from canhazgpu.service.queue import NodeQueue, QueueRequest

if TYPE_CHECKING:
    from canhazgpu.ledger.values import Waiter

HEADER = ("NODE", "POSITION", "USER", "WAITS FOR", "TYPE", "WAITING")


@click.command(epilog=exit_codes(StoreError))
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
    queues = app.service().queue(QueueRequest(tuple(nodes)))
    if as_json:
        click.echo(json.dumps(queues_to_dict(queues), indent=2))
        return
    rows = [row for one in queues for row in _rows(one)]
    for line in column_lines(HEADER, rows) if rows else ("nobody waits",):
        click.echo(line)


def _rows(queue: NodeQueue) -> Iterable[tuple[str, ...]]:
    for position, one in enumerate(queue.waiters, 1):
        type_ = one.owner.partition(":")[0]
        waited = duration_text(queue.read_at - one.since)
        yield (
            queue.node,
            str(position),
            one.user,
            _requested_gpus(one, queue.display_indices),
            type_,
            waited,
        )


def _requested_gpus(waiter: Waiter, places: Mapping[str, str]) -> str:
    if waiter.gpus:
        return gpu_list_text(waiter.gpus, places)
    return waiter.count_text
