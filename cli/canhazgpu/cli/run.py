"""`canhazgpu run`: a command with GPUs of its own, for as long as it runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click

from canhazgpu.cli.acquire import open_acquisition, warn_of_intruders, with_processes
from canhazgpu.cli.app import App
from canhazgpu.cli.options import threshold_flags
from canhazgpu.cli.param_types import DURATION
from canhazgpu.cli.run_inside import become_inside, refuse_bounds, refuse_others
from canhazgpu.cli.run_start import Bounds, Start
from canhazgpu.cli.wanted import (
    Wanted,
    acquire_options,
    note_of,
    refuse_through_slurm,
    wanted_of,
)
from canhazgpu.ledger.values import RUN, Claim, new_owner
from canhazgpu.node.identity import node_name
from canhazgpu.people.launch import become, check_command
from canhazgpu.schedulers.slurm.inside import inside_job, srun_command


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@acquire_options
@click.option(
    "--timeout", type=DURATION, metavar="TIME", help="End the command after so long, as 2h."
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

    Waits in this node's queue until the GPUs are free and unused. The command
    then takes this process's place, with its terminal, signals and exit status;
    CUDA_VISIBLE_DEVICES holds its GPUs. They are free the moment the command and
    what it left in the background are gone, however they end.

    Inside a Slurm job the command gets the job's own GPUs.

    \b
    Exit status: the command's own; 127 or 126 where it cannot be executed;
    75 where the GPUs are not to be had (with --nonblock or --wait).

    \b
    Examples:
      canhazgpu run -- python train.py
      canhazgpu run --gpus 2 --note "sweep 7" -- python train.py --epochs 10
      canhazgpu run --gpu-ids 1,3 --wait 30m -- ./job.sh
      canhazgpu run --gpus 1 --nonblock -- jupyter lab
      canhazgpu run --timeout 2h -- bash
    """  # noqa: D301 - click reads the character: keep these lines
    config = app.effective(threshold_flags(options["memory_threshold"])).config
    wanted, bounds = wanted_of(config, options), Bounds(timeout, end_if_lost)
    check_command(command, app.environ)
    node = node_name(config.node, app.environ)
    if (job := inside_job(app.environ, node)) is not None:
        refuse_bounds(job, bounds)
        refuse_others(app, config, job, node)
        become_inside(job, wanted, command, app.environ)
    if config.run.via_slurm == "yes":
        _become_through_slurm(node, wanted, timeout, command, app.environ)
    caller = app.caller()
    claim = Claim(new_owner(RUN), RUN, caller.user, caller.uid, note=note_of(options))
    acquisition = open_acquisition(app, config, with_processes(claim))
    grant = acquisition.get(app, wanted)
    warn_of_intruders(grant, node)
    Start(app, acquisition, grant, bounds).become(command)


def _become_through_slurm(
    node: str,
    wanted: Wanted,
    timeout_s: float | None,
    command: Sequence[str],
    environ: Mapping[str, str],
) -> NoReturn:
    refuse_through_slurm(wanted)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    become(srun_command(node, wanted.count, command, terminal=terminal, limit_s=timeout_s), environ)
