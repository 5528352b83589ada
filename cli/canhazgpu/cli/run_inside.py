"""`canhazgpu run` inside one of Slurm's jobs: the command gets GPUs of the job around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

import click

from canhazgpu.errors import InputError, StoreError
from canhazgpu.people.launch import become
from canhazgpu.schedulers.slurm.inside import InsideJob, not_the_jobs

if TYPE_CHECKING:
    from canhazgpu.cli.app import App
    from canhazgpu.cli.run_start import Bounds
    from canhazgpu.cli.wanted import Wanted
    from canhazgpu.config import Config


def refuse_bounds(job: InsideJob, bounds: Bounds) -> None:
    """Refuse what nobody would see to: the job's GPUs have no keeper."""
    if bounds.timeout_s is not None or bounds.ends_when_lost:
        option = "--end-if-lost" if bounds.timeout_s is None else "--timeout"
        raise InputError(
            f"inside Slurm job {job.job_id} the job bounds the command, not {option}:"
            " use 'timeout' or 'srun --time'"
        )


def refuse_others(app: App, config: Config, job: InsideJob, node: str) -> None:
    """Refuse GPUs of the job's environment that are somebody else's by now."""
    from canhazgpu.refusal import holder_text  # noqa: PLC0415 - only inside a job

    try:
        (view,) = app.reader(config.store).look([node])
    except StoreError:
        # Slurm gave the job its GPUs; the ledger could only have told that it is over.
        return
    if (found := not_the_jobs(job, view.reservations)) is not None:
        device, holder = found
        raise InputError(
            f"{device} is reserved by {holder_text(holder, view.read_at)}, not by Slurm job"
            f" {job.job_id}: where that job is over, unset SLURM_JOB_ID"
        )


def become_inside(
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
