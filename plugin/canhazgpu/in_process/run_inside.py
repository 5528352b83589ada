"""`canhazgpu run` inside one of Slurm's jobs: the command gets GPUs of the job around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.errors import InputError, StoreError
from canhazgpu.schedulers.slurm.control.enclosing_job import (
    EnclosingJob,
    find_foreign_device,
    not_the_jobs_text,
)
from canhazgpu.service.grants import RunInsideJob

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.service.grants import RunRequest


def run_inside(
    adapters: Adapters, config: Config, job: EnclosingJob, node: str, request: RunRequest
) -> RunInsideJob:
    """Return the devices of the job around the caller; Slurm has reserved them."""
    _refuse_bounds(job, request)
    _refuse_others(adapters, config, job, node)
    if request.gpus.selectors:
        raise InputError(f"inside Slurm job {job.job_id} the GPUs are the job's: use --gpus")
    count = request.gpus.count
    if count > len(job.devices):
        raise InputError(
            f"Slurm job {job.job_id} has {len(job.devices)} GPUs here, and {count} are asked"
            f" for: submit it with --gres=gpu:{count}"
        )
    devices = job.devices[:count]
    environment = {**adapters.environ, "CUDA_VISIBLE_DEVICES": ",".join(devices)}
    return RunInsideJob(job.job_id, devices, environment)


def _refuse_bounds(job: EnclosingJob, request: RunRequest) -> None:
    """Refuse what nobody would see to: the job's GPUs have no keeper."""
    if request.timeout_s is not None or request.ends_when_lost:
        option = "--end-if-lost" if request.timeout_s is None else "--timeout"
        raise InputError(
            f"inside Slurm job {job.job_id} the job bounds the command, not {option}:"
            " use 'timeout' or 'srun --time'"
        )


def _refuse_others(adapters: Adapters, config: Config, job: EnclosingJob, node: str) -> None:
    """Refuse GPUs of the job's environment that are somebody else's by now."""
    from canhazgpu.allocation.refusal import holder_text  # noqa: PLC0415 - only inside a job

    try:
        (view,) = adapters.reader(config.store).read_nodes([node])
    except StoreError:
        # Slurm gave the job its GPUs; the ledger could only have told that it is over.
        return
    if (found := find_foreign_device(job, view.reservations)) is not None:
        device, holder = found
        raise InputError(not_the_jobs_text(job, device, holder_text(holder, view.read_at)))
