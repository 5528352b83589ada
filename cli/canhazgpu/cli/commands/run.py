"""`canhazgpu run`: run a command with GPUs of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from canhazgpu.cli.app import App, ExecuteInCallerError
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.gpu_request import gpu_request_options, parse_gpu_request
from canhazgpu.cli.options.param_types import DURATION
from canhazgpu.cli.terminal.grant_messages import (
    print_named_gpus,
    raise_unavailable,
    warn_of_unreserved_use,
)
from canhazgpu.cli.terminal.output import print_sanitized
from canhazgpu.errors import NodeStateError, StoreError, UnavailableError
from canhazgpu.people.command_exec import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND
from canhazgpu.service.grants import RunInsideJob, RunRequest, RunStarted, ThroughScheduler

if TYPE_CHECKING:
    from canhazgpu.service.port import NodeService


@click.command(
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
    epilog=exit_codes(
        StoreError,
        NodeStateError,
        UnavailableError,
        others={
            0: "the command's own exit code, as any other number",
            EXIT_NOT_EXECUTABLE: "the command cannot be executed",
            EXIT_NOT_FOUND: "the command does not exist",
        },
    ),
)
@gpu_request_options
@click.option(
    "-t", "--timeout", type=DURATION, metavar="TIME", help="End the command after so long, as 2h."
)
@click.option(
    "--end-if-lost",
    is_flag=True,
    help="End the command when its reservation is lost, as when an administrator takes it.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def run(
    app: App, /, command: Sequence[str], timeout: float | None, end_if_lost: bool, **options: Any
) -> None:
    """Run a command with GPUs that are its own until it ends.

    Waits in this node's queue while others have reserved the GPUs. Where the
    end of all reservations would not be enough, because somebody uses GPUs
    without reservation or they are quarantined, it fails; with --wait it waits.
    The command then takes this process's place, with its terminal, signals and exit status;
    CUDA_VISIBLE_DEVICES holds its GPUs. They are free the moment the command and
    what it left in the background are gone, however they end.

    --gpus means whole GPUs; with --profile the command gets one MIG instance.
    Inside a Slurm job the command gets the job's own GPUs, unless --outside-job.

    \b
    Examples:
      canhazgpu run -- python train.py
      canhazgpu run -g 2 -n "sweep 7" -- python train.py --epochs 10
      canhazgpu run --gpu-ids 1,3 --wait 30m -- ./job.sh
      canhazgpu run --gpus 1 --nonblock -- jupyter lab
      canhazgpu run --profile 1g.10gb -- python eval.py
      canhazgpu run --timeout 2h -- bash
    """  # noqa: D301 - click reads the character: keep these lines
    request = RunRequest(
        parse_gpu_request(options),
        tuple(command),
        timeout,
        end_if_lost,
        on_terminal=app.reads_terminal(),
    )
    app.check_command(command, app.environ)
    service = app.service()
    answer = service.start_run(request, app.progress())
    if isinstance(answer, RunStarted):
        _exec_started(app, service, answer, request)
    if isinstance(answer, ThroughScheduler):
        app.execute(answer.command, answer.environment)
    if isinstance(answer, RunInsideJob):
        devices = ",".join(answer.devices)
        text = f"canhazgpu: inside Slurm job {answer.job_id}: using its GPUs {devices}"
        print_sanitized(text, err=True)
        app.execute(command, answer.environment)
    raise_unavailable(answer)


def _exec_started(app: App, service: NodeService, run: RunStarted, request: RunRequest) -> NoReturn:
    """Execute the command; if that fails, release its GPUs."""
    try:
        print_named_gpus(run, request.gpus)
        warn_of_unreserved_use(run)
        sys.stdout.flush()
        sys.stderr.flush()
        app.execute(request.command, run.environment)
    except ExecuteInCallerError:
        raise
    except BaseException:
        service.cancel_run(run.owner)
        raise
