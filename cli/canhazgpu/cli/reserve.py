"""`canhazgpu reserve`: GPUs for a person, for a time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

import click

from canhazgpu.cli.acquire import open_acquisition, warn_of_intruders
from canhazgpu.cli.app import App
from canhazgpu.cli.options import json_option, threshold_flags
from canhazgpu.cli.param_types import DURATION
from canhazgpu.cli.wanted import (
    Wanted,
    acquire_options,
    note_of,
    refuse_through_slurm,
    wanted_of,
)
from canhazgpu.errors import InputError
from canhazgpu.ledger.values import MANUAL, Claim, new_owner
from canhazgpu.node.identity import node_name
from canhazgpu.people.launch import become, visible_devices
from canhazgpu.schedulers.slurm.inside import salloc_command
from canhazgpu.status.times import duration_text

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.node.caller import Caller
    from canhazgpu.service import Grant

DEFAULT_DURATION = "8h"


@click.command()
@acquire_options
@click.option(
    "--duration",
    type=DURATION,
    metavar="TIME",
    default=DEFAULT_DURATION,
    show_default=True,
    help="How long, as 30m, 2h, 1d or 0.5h.",
)
@click.option(
    "--short", is_flag=True, help="Print only the value for CUDA_VISIBLE_DEVICES, for scripts."
)
@json_option
@click.pass_obj
def reserve(app: App, /, duration: float, short: bool, as_json: bool, **options: Any) -> None:
    """Reserve GPUs of this node for yourself, for a time.

    Waits in the queue until they are free and unused, as `run` does. They stay
    yours until the time is over or you give them back with `canhazgpu release`.

    \b
    Exit status: 0 once reserved; 75 where the GPUs are not to be had (with
    --nonblock or --wait).

    \b
    Examples:
      canhazgpu reserve --gpus 2 --duration 4h
      canhazgpu reserve --gpu-ids 0,1 --duration 1d --note "demo on Friday"
      export CUDA_VISIBLE_DEVICES=$(canhazgpu reserve --gpus 1 --short)
    """  # noqa: D301 - click reads the character: keep these lines
    config = app.effective(threshold_flags(options["memory_threshold"])).config
    wanted = wanted_of(config, options)
    caller = app.caller()
    _check_duration(config, duration, caller)
    node = node_name(config.node, app.environ)
    note = note_of(options)
    if config.run.via_slurm == "yes":
        _reserve_through_slurm(app, node, wanted, duration, note)
    # No boot and no process: a person's reservation outlives both.
    claim = Claim(
        new_owner(MANUAL), MANUAL, caller.user, caller.uid, note=note, duration_s=duration
    )
    grant = open_acquisition(app, config, claim).get(app, wanted)
    warn_of_intruders(grant, node)
    click.echo(_text(config, claim, grant, node, short=short, as_json=as_json))


def _check_duration(config: Config, duration_s: float, caller: Caller) -> None:
    longest_s = config.run.max_reserve_s
    if longest_s and duration_s > longest_s and not caller.is_root:
        raise InputError(
            f"--duration is longer than the {duration_text(longest_s)} that this site allows"
            " (run.max_reserve_s)"
        )


def _text(
    config: Config, claim: Claim, grant: Grant, node: str, *, short: bool, as_json: bool
) -> str:
    devices = visible_devices(grant.gpus, config.run.export)
    if as_json:
        return json.dumps(
            {
                "node": node,
                "owner": claim.owner,
                "duration_s": claim.duration_s,
                "gpus": [
                    {"index": gpu.index, "mig_index": gpu.mig_index, "uuid": gpu.uuid}
                    for gpu in grant.gpus
                ],
                "environment": devices,
            },
            indent=2,
        )
    if short:
        return devices["CUDA_VISIBLE_DEVICES"]
    places = ", ".join(gpu.place for gpu in grant.gpus)
    exports = " ".join(f"{name}={value}" for name, value in devices.items())
    return (
        f"Reserved GPU {places} of {node} for {duration_text(claim.duration_s or 0)}\n"
        f"  export {exports}\n"
        f"  canhazgpu release   gives {'it' if len(grant.gpus) == 1 else 'them'} back"
    )


def _reserve_through_slurm(
    app: App, node: str, wanted: Wanted, duration_s: float, note: str | None
) -> NoReturn:
    refuse_through_slurm(wanted)
    become(salloc_command(node, wanted.count, duration_s, note or ""), app.environ)
