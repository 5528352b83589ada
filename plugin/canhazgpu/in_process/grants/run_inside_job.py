"""`canhazgpu run` inside a Slurm job: the command gets GPUs of that job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.allocation.gpu_choice import ONE_INSTANCE_TEXT
from canhazgpu.errors import InputError, StoreError
from canhazgpu.schedulers.slurm.control.enclosing_job import (
    EnclosingJob,
    find_false_statement,
    find_foreign_device,
    not_the_jobs_text,
)
from canhazgpu.service.grants import RunInsideJob

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.service.grants import RunRequest


def run_inside_job(
    adapters: Adapters, config: Config, job: EnclosingJob, node: str, request: RunRequest
) -> RunInsideJob:
    """Return devices of the job that the caller runs in; Slurm has given them to the job."""
    _refuse_run_limits(job, request)
    _refuse_others_gpus(adapters, config, job, node)
    if request.gpus.selectors or request.gpus.profile:
        raise InputError(f"inside Slurm job {job.job_id} the GPUs are the job's: use --gpus")
    count = request.gpus.count
    if count > 1 and any(device.startswith("MIG-") for device in job.devices):
        raise InputError(f"inside Slurm job {job.job_id} too {ONE_INSTANCE_TEXT}")
    if count > len(job.devices):
        raise InputError(
            f"Slurm job {job.job_id} has {len(job.devices)} GPUs here, and {count} are asked"
            f" for: submit it with --gres=gpu:{count}"
        )
    variables = job.variables(count)
    devices = tuple(variables["CUDA_VISIBLE_DEVICES"].split(","))
    return RunInsideJob(job.job_id, devices, {**adapters.environ_of_command, **variables})


def _refuse_run_limits(job: EnclosingJob, request: RunRequest) -> None:
    """Refuse limits for the command: inside a job no monitor would enforce them."""
    if request.timeout_s is not None or request.ends_when_lost:
        option = "--end-if-lost" if request.timeout_s is None else "--timeout"
        raise InputError(
            f"inside Slurm job {job.job_id} the job bounds the command, not {option}:"
            " use 'timeout' or 'srun --time'"
        )


def _refuse_others_gpus(adapters: Adapters, config: Config, job: EnclosingJob, node: str) -> None:
    """Refuse to run if the environment names a job or GPUs that are not the caller's."""
    from canhazgpu.allocation.holder_text import holder_text  # noqa: PLC0415 - only inside a job

    try:
        (view,) = adapters.reader(config).read_nodes([node])
    except StoreError:
        # Slurm gave the job these devices. The ledger would only show that the job is over.
        return
    if (foreign := find_foreign_device(job, view.reservations)) is not None:
        device, holder = foreign
        raise InputError(not_the_jobs_text(job, device, holder_text(holder, view.read_at)))
    if (wrong := find_false_statement(job, view.reservations, adapters.caller().uid)) is not None:
        raise InputError(wrong)
