"""`canhazgpu extend`: extend one's own reservations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option
from canhazgpu.cli.options.node import NODE_EXIT_CODES, node_option
from canhazgpu.cli.options.param_types import DURATION, GPU_IDS
from canhazgpu.cli.options.value_completion import complete_own_gpu_ids
from canhazgpu.cli.terminal.gpu_names import format_gpus
from canhazgpu.cli.terminal.output import print_sanitized, sanitized_errors
from canhazgpu.durations import duration_text
from canhazgpu.errors import InputError, StoreError
from canhazgpu.service.holdings import ExtendAnswer, ExtendRequest
from canhazgpu.status.json_format import iso_time

if TYPE_CHECKING:
    from canhazgpu.gpu.ids import GpuSelector
    from canhazgpu.ledger.values import Reservation


@click.command(epilog=exit_codes(StoreError, others=NODE_EXIT_CODES))
@click.option(
    "-d",
    "--duration",
    "duration_s",
    type=DURATION,
    required=True,
    metavar="TIME",
    help="How much longer than now agreed: 30m, 2h, 1d, 0.5h.",
)
@click.option(
    "-G",
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
    gpu_ids: tuple[GpuSelector, ...] | None,
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
    with sanitized_errors():
        answer = app.service().extend(ExtendRequest(duration_s, node, gpu_ids), app.progress())
    if as_json:
        click.echo(_json(answer))
    else:
        for one in answer.extended:
            print_sanitized(_extended_line(answer, one))
    if answer.expired:
        expired = format_gpus(answer.expired, answer)
        raise InputError(f"the reservation of {expired} is over: it was not extended")


def _extended_line(answer: ExtendAnswer, reservation: Reservation) -> str:
    left_s = (reservation.expires_at or 0.0) - answer.read_at
    gpu = format_gpus([reservation.gpu], answer)
    return f"{gpu} of {answer.node}: expires in {duration_text(left_s)}"


def _json(answer: ExtendAnswer) -> str:
    rows = [
        {
            "gpu": answer.display_indices.get(one.gpu),
            "uuid": one.gpu,
            "owner": one.claim.owner,
            "expires_at": iso_time(one.expires_at),
        }
        for one in answer.extended
    ]
    return json.dumps({"node": answer.node, "extended": rows}, indent=2)
