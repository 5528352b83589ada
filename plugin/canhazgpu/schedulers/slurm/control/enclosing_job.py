"""Pure: what a process inside one of Slurm's jobs has, and how to ask Slurm for more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from canhazgpu.ledger.values import Reservation
from canhazgpu.schedulers.slurm import environment as names

NO_VISIBLE_DEVICES = ("", "NoDevFiles", "-1")
"""What CUDA_VISIBLE_DEVICES holds of a job without GPUs."""


@dataclass(frozen=True, slots=True)
class EnclosingJob:
    """The job around a process of this node, and the devices it may see, as CUDA names them."""

    job_id: str
    devices: tuple[str, ...]


def find_enclosing_job(environ: Mapping[str, str], node: str) -> EnclosingJob | None:
    """Return the job around this process, None where there is none.

    A shell that holds an allocation elsewhere, as salloc's on another host, is in no job here: only
    a job's own processes know the node's name from slurmd.
    """
    job_id = environ.get(names.JOB_ID, "")
    if not job_id or environ.get(names.NODE_NAME) != node:
        return None
    visible = environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = () if visible in NO_VISIBLE_DEVICES else tuple(visible.split(","))
    return EnclosingJob(job_id, devices)


def find_foreign_device(
    job: EnclosingJob, reservations: Mapping[str, Reservation]
) -> tuple[str, Reservation] | None:
    """Return a device of the job's environment that is somebody else's by now, and whose.

    A shell may outlive the job around it, and anybody may set variables.
    """
    for device in job.devices:
        holder = reservations.get(device)
        if holder is not None and holder.claim.job_id != job.job_id:
            return device, holder
    return None


def not_the_jobs_text(job: EnclosingJob, device: str, holder: str) -> str:
    """Say whose the device is, and what to do where the job is over."""
    return (
        f"{device} is reserved by {holder}, not by Slurm job {job.job_id}:"
        f" where that job is over, unset {names.JOB_ID}"
    )


def srun_command(
    node: str, gpus: int, command: Sequence[str], *, terminal: bool, limit_s: float | None
) -> list[str]:
    """Return the command that runs another one on this node with so many of Slurm's GPUs."""
    words = ["srun", "--nodes=1", "--ntasks=1", f"--nodelist={node}", f"--gres=gpu:{gpus}"]
    words += [] if limit_s is None else [f"--time={_minutes(limit_s)}"]
    words += ["--pty"] if terminal else []
    return [*words, "--", *command]


def salloc_command(node: str, gpus: int, limit_s: float, comment: str) -> list[str]:
    """Return the command that holds so many of Slurm's GPUs on this node for a time."""
    words = ["salloc", "--no-shell", "--nodes=1", f"--nodelist={node}", f"--gres=gpu:{gpus}"]
    words += [f"--time={_minutes(limit_s)}", "--job-name=canhazgpu-reserve"]
    return words + ([f"--comment={comment}"] if comment else [])


def _minutes(seconds: float) -> int:
    # Slurm's times are whole minutes; less than asked for would end the work early.
    return max(math.ceil(seconds / 60), 1)
