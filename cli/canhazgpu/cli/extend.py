"""`canhazgpu extend`: keep for longer what one reserved."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.completion_values import complete_own_gpu_ids
from canhazgpu.cli.node_gpus import NodeGpus, node_gpus, node_option
from canhazgpu.cli.options import json_option
from canhazgpu.cli.output import harmless_errors, say
from canhazgpu.cli.param_types import DURATION, GPU_IDS
from canhazgpu.errors import InputError
from canhazgpu.people.own import check_bound, to_extend
from canhazgpu.status.json_form import time_text
from canhazgpu.status.times import duration_text

if TYPE_CHECKING:
    from canhazgpu.gpu.ids import Selector
    from canhazgpu.ledger.values import Reservation


@click.command()
@click.option(
    "--duration",
    "duration_s",
    type=DURATION,
    required=True,
    metavar="TIME",
    help="How much longer than now agreed: 30m, 2h, 1d, 0.5h.",
)
@click.option(
    "--gpu-ids",
    type=GPU_IDS,
    shell_complete=complete_own_gpu_ids,
    metavar="IDS",
    help="Extend these: 1,3 or 0-3, UUIDs or their beginnings.  [default: all you reserved]",
)
@node_option
@json_option
@click.pass_obj
def extend(
    app: App,
    duration_s: float,
    gpu_ids: tuple[Selector, ...] | None,
    node: str | None,
    as_json: bool,
) -> None:
    """Keep GPUs that you reserved for longer.

    The time is added to the present end. run.max_reserve_s bounds how far from now the
    end may be, except for root. A reservation that has expired cannot be extended.

    \b
    Examples:
      canhazgpu extend --duration 1h
      canhazgpu extend --duration 30m --gpu-ids 1,3
    """  # noqa: D301 - click reads the character: keep these lines
    config = app.effective().config
    caller = app.caller()
    ledger = app.writer(config.store)
    with harmless_errors():
        gpus = node_gpus(app, config, ledger, node, gpu_ids)
        named = None if gpu_ids is None else gpus.resolve(gpu_ids)
        found = to_extend(gpus.view, caller.uid, named, gpus.places)
        if not caller.is_root:
            check_bound(gpus.view, found, duration_s, config.run.max_reserve_s)
    extended = [
        reservation
        for one in found
        for reservation in ledger.extend(gpus.view.node, one.claim.owner, duration_s, one.gpus)
    ]
    lost = {gpu for one in found for gpu in one.gpus} - {one.gpu for one in extended}
    _tell(gpus, extended, as_json=as_json)
    if lost:
        raise InputError(f"the reservation of {gpus.names(lost)} is over: it was not extended")


def _tell(gpus: NodeGpus, extended: list[Reservation], *, as_json: bool) -> None:
    if as_json:
        click.echo(_json(gpus, extended))
        return
    for one in extended:
        say(_line(gpus, one))


def _line(gpus: NodeGpus, reservation: Reservation) -> str:
    left_s = (reservation.expires_at or 0.0) - gpus.view.read_at
    return (
        f"{gpus.names([reservation.gpu])} of {gpus.view.node}: expires in {duration_text(left_s)}"
    )


def _json(gpus: NodeGpus, extended: list[Reservation]) -> str:
    rows = [
        {
            "gpu": gpus.places.get(one.gpu),
            "uuid": one.gpu,
            "owner": one.claim.owner,
            "expires_at": time_text(one.expires_at),
        }
        for one in extended
    ]
    return json.dumps({"node": gpus.view.node, "extended": rows}, indent=2)
