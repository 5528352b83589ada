"""`canhazgpu reserve`: reserve GPUs for a time."""

from __future__ import annotations

import json
from typing import Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option
from canhazgpu.cli.options.gpu_request import gpu_request_options, parse_gpu_request
from canhazgpu.cli.options.param_types import DURATION
from canhazgpu.cli.terminal.grant_messages import (
    print_named_gpus,
    raise_unavailable,
    warn_of_unreserved_use,
)
from canhazgpu.durations import duration_text, short_duration_text
from canhazgpu.errors import NodeStateError, StoreError, UnavailableError
from canhazgpu.service.grants import DEFAULT_RESERVE_S, Reserved, ReserveRequest, ThroughScheduler


@click.command(
    epilog=exit_codes(StoreError, NodeStateError, UnavailableError, others={0: "reserved"})
)
@gpu_request_options
@click.option(
    "-d",
    "--duration",
    type=DURATION,
    metavar="TIME",
    help="How long, as 30m, 2h, 1d or 0.5h.  [default: "
    f"{short_duration_text(DEFAULT_RESERVE_S)}, or the site's maximum where that is shorter]",
)
@click.option(
    "-s",
    "--short",
    is_flag=True,
    help="Print only the value for CUDA_VISIBLE_DEVICES, for scripts.",
)
@json_option
@click.pass_obj
def reserve(
    app: App, /, duration: float | None, short: bool, as_json: bool, **options: Any
) -> None:
    """Reserve GPUs of this node for yourself, for a time.

    Waits in the queue until they are free and unused, as `run` does. They stay
    yours until the time is over or you give them back with `canhazgpu release`.
    Inside a Slurm job it refuses, unless --outside-job: Slurm gives the job its GPUs.

    \b
    Examples:
      canhazgpu reserve --gpus 2 --duration 4h
      canhazgpu reserve --gpu-ids 0,1 --duration 1d --note "demo on Friday"
      canhazgpu reserve --gpus 2 --profile 1g.10gb
      export CUDA_VISIBLE_DEVICES=$(canhazgpu reserve --gpus 1 --short)
    """  # noqa: D301 - click reads the character: keep these lines
    request = ReserveRequest(parse_gpu_request(options), duration)
    answer = app.service().reserve(request, app.progress())
    if isinstance(answer, ThroughScheduler):
        app.execute(answer.command, answer.environment)
    if not isinstance(answer, Reserved):
        raise_unavailable(answer)
    warn_of_unreserved_use(answer)
    if short:
        print_named_gpus(answer, request.gpus)
    click.echo(_reservation_text(answer, short=short, as_json=as_json))


def _reservation_text(reserved: Reserved, *, short: bool, as_json: bool) -> str:
    devices = reserved.environment
    if as_json:
        return json.dumps(
            {
                "node": reserved.node,
                "owner": reserved.owner,
                "duration_s": reserved.duration_s,
                "gpus": [
                    {
                        "index": gpu.index,
                        "mig_index": gpu.mig_index,
                        "mig_profile": gpu.mig_profile or None,
                        "uuid": gpu.uuid,
                    }
                    for gpu in reserved.gpus
                ],
                "environment": devices,
            },
            indent=2,
        )
    if short:
        return devices["CUDA_VISIBLE_DEVICES"]
    places = ", ".join(gpu.display_index for gpu in reserved.gpus)
    exports = " ".join(f"{name}={value}" for name, value in devices.items())
    several = len(reserved.gpus) > 1 and reserved.gpus[0].is_mig_instance
    one_each = "  CUDA shows a process one MIG instance: name one of them to each\n"
    return (
        f"Reserved GPU {places} of {reserved.node} for {duration_text(reserved.duration_s)}\n"
        f"  export {exports}\n"
        f"{one_each if several else ''}"
        f"  canhazgpu release   gives {'it' if len(reserved.gpus) == 1 else 'them'} back"
    )
