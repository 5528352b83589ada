"""`canhazgpu run`: a command with GPUs of its own, for as long as it runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import click

from canhazgpu.cli.acquire import (
    Acquisition,
    Wanted,
    acquire_options,
    note_of,
    open_acquisition,
    open_service,
    refuse_through_slurm,
    wanted_of,
    warn_of_intruders,
    with_processes,
)
from canhazgpu.cli.app import App
from canhazgpu.cli.options import threshold_flags
from canhazgpu.cli.param_types import DURATION
from canhazgpu.errors import InputError, NodeStateError, StoreError
from canhazgpu.ledger.values import RUN, Claim, new_owner
from canhazgpu.node.identity import node_name
from canhazgpu.node.marked import new_mark
from canhazgpu.people.launch import become, check_command, run_environment
from canhazgpu.schedulers.slurm.inside import (
    InsideJob,
    inside_job,
    not_the_jobs,
    srun_command,
)

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.node.watch import ProcessWatch
    from canhazgpu.people.keeper import Keeper
    from canhazgpu.service import Grant

READY = b"ready"


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
    wanted = wanted_of(config, options)
    check_command(command, app.environ)
    node = node_name(config.node, app.environ)
    if (job := inside_job(app.environ, node)) is not None:
        _refuse_bounds(job, timeout, ends_when_lost=end_if_lost)
        _refuse_others(app, config, job, node)
        _run_inside(job, wanted, command, app.environ)
    if config.run.via_slurm == "yes":
        _run_through_slurm(node, wanted, timeout, command, app.environ)
    caller = app.caller()
    claim = Claim(new_owner(RUN), RUN, caller.user, caller.uid, note=note_of(options))
    acquisition = open_acquisition(app, config, with_processes(claim))
    grant = acquisition.get(app, wanted)
    warn_of_intruders(grant, node)
    start = _Start(app, config, acquisition, grant, timeout, end_if_lost)
    start.become(command)


def _run_inside(
    job: InsideJob, wanted: Wanted, command: Sequence[str], environ: Mapping[str, str]
) -> NoReturn:
    """Run the command with GPUs of the job around it; Slurm has reserved them."""
    if wanted.selectors:
        raise InputError(f"inside Slurm job {job.job_id} the GPUs are the job's: use --gpus")
    if wanted.count > len(job.devices):
        raise InputError(
            f"Slurm job {job.job_id} has {len(job.devices)} GPUs here, and {wanted.count} are asked"
            f" for: submit it with --gres=gpu:{wanted.count}"
        )
    devices = ",".join(job.devices[: wanted.count])
    click.echo(f"canhazgpu: inside Slurm job {job.job_id}: using its GPUs {devices}", err=True)
    become(command, {**environ, "CUDA_VISIBLE_DEVICES": devices})


def _refuse_bounds(job: InsideJob, timeout_s: float | None, *, ends_when_lost: bool) -> None:
    """Refuse what nobody would see to: the job's GPUs have no keeper."""
    if timeout_s is not None or ends_when_lost:
        option = "--end-if-lost" if timeout_s is None else "--timeout"
        raise InputError(
            f"inside Slurm job {job.job_id} the job bounds the command, not {option}:"
            " use 'timeout' or 'srun --time'"
        )


def _refuse_others(app: App, config: Config, job: InsideJob, node: str) -> None:
    """Refuse GPUs of the job's environment that are somebody else's by now."""
    from canhazgpu.ledger.connect import Role  # noqa: PLC0415 - only inside a job
    from canhazgpu.refusal import holder_text  # noqa: PLC0415

    try:
        (view,) = app.ledger(config.store, Role.READ).look([node])
    except StoreError:
        # Slurm gave the job its GPUs; the ledger could only have told that it is over.
        return
    if (found := not_the_jobs(job, view.reservations)) is not None:
        device, holder = found
        raise InputError(
            f"{device} is reserved by {holder_text(holder, view.read_at)}, not by Slurm job"
            f" {job.job_id}: where that job is over, unset SLURM_JOB_ID"
        )


def _run_through_slurm(
    node: str,
    wanted: Wanted,
    timeout_s: float | None,
    command: Sequence[str],
    environ: Mapping[str, str],
) -> NoReturn:
    refuse_through_slurm(wanted)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    become(srun_command(node, wanted.count, command, terminal=terminal, limit_s=timeout_s), environ)


class _Start:
    """The step from a grant to the command: the keeper first, then the command."""

    def __init__(
        self,
        app: App,
        config: Config,
        acquisition: Acquisition,
        grant: Grant,
        timeout_s: float | None,
        end_if_lost: bool,
    ) -> None:
        self._app = app
        self._config = config
        self._acquisition = acquisition
        self._grant = grant
        self._timeout_s = timeout_s
        self._end_if_lost = end_if_lost
        self._mark = new_mark(acquisition.claim.owner)

    def become(self, command: Sequence[str]) -> NoReturn:
        """Become the command; where that fails, release the GPUs and say why."""
        owner = self._acquisition.claim.owner
        try:
            self._start_keeper()
            environ = run_environment(
                self._app.environ, self._mark, self._grant.gpus, self._config.run.export
            )
            sys.stdout.flush()
            sys.stderr.flush()
            become(command, environ)
        except BaseException:
            ledger, node = self._acquisition.ledger, self._acquisition.node
            ledger.release(node, owner, "its command did not start")
            raise

    def _start_keeper(self) -> None:
        from canhazgpu.node.detach import spawn_detached  # noqa: PLC0415 - only after a grant
        from canhazgpu.people.keeper import run_keeper  # noqa: PLC0415

        (command,) = self._acquisition.claim.processes
        try:
            said = spawn_detached(partial(run_keeper, make=self._keeper, command=command))
        except OSError as exc:
            raise NodeStateError(f"cannot start a process: {exc.strerror}") from exc
        if said != READY:
            raise NodeStateError("the process that keeps the reservation did not start")

    def _keeper(self, watch: ProcessWatch) -> Keeper:
        from canhazgpu.people.keeper import Keeper, Kept  # noqa: PLC0415 - only after a grant

        claim = self._acquisition.claim
        kept = Kept(
            node=self._acquisition.node,
            owner=claim.owner,
            mark=self._mark,
            command=claim.processes[0],
            heartbeat_s=self._config.run.heartbeat_s,
            timeout_s=self._timeout_s,
            ends_when_lost=self._end_if_lost,
        )
        return Keeper(kept, watch, self._open_ledger, self._restore)

    def _open_ledger(self) -> Ledger:
        # Its own connection: the one before belongs to the process that was forked from.
        from canhazgpu.ledger.connect import Role  # noqa: PLC0415 - only after a grant

        return self._app.ledger(self._config.store, Role.WRITE)

    def _restore(self, ledger: Ledger) -> str:
        from canhazgpu.people.lost import restore  # noqa: PLC0415 - hardly ever needed

        node = self._acquisition.node
        probe = self._app.probe(node, self._config.validation)
        service = open_service(node, probe, ledger)
        return restore(
            ledger, service, self._acquisition.claim, [gpu.uuid for gpu in self._grant.gpus]
        )
