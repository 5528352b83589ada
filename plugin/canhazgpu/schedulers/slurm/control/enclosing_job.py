"""The Slurm job that encloses a process, and the job's devices; pure."""

from __future__ import annotations

from collections.abc import Mapping

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.ids import GPUS_VARIABLE
from canhazgpu.ledger.values import Reservation
from canhazgpu.schedulers.slurm import environment as names

NO_VISIBLE_DEVICES = ("", "NoDevFiles", "-1")
"""The values of CUDA_VISIBLE_DEVICES in a job without GPUs."""
_UUID_PREFIXES = ("GPU-", "MIG-")


@dataclass(frozen=True, slots=True)
class EnclosingJob:
    """The job that encloses a process.

    `devices` are its visible devices as CUDA names them; `uuids` are its GPUs by UUID, empty where
    the environment does not tell them.
    """

    job_id: str
    devices: tuple[str, ...]
    uuids: tuple[str, ...] = ()

    def variables(self, count: int) -> dict[str, str]:
        """Return the variables by which a program sees `count` of the job's devices.

        Numbers of CUDA's and UUIDs come in orders of their own, so that a part of the numbers
        cannot be said to be a part of the UUIDs.
        """
        chosen = self.devices[:count]
        if not all(device.startswith(_UUID_PREFIXES) for device in chosen):
            if len(self.uuids) != len(self.devices):
                return {"CUDA_VISIBLE_DEVICES": ",".join(chosen), GPUS_VARIABLE: ""}
            if count == len(self.devices):
                return {
                    "CUDA_VISIBLE_DEVICES": ",".join(chosen),
                    GPUS_VARIABLE: ",".join(self.uuids),
                }
            chosen = self.uuids[:count]
        return {"CUDA_VISIBLE_DEVICES": ",".join(chosen), GPUS_VARIABLE: ",".join(chosen)}


def find_enclosing_job(environ: Mapping[str, str], node: str) -> EnclosingJob | None:
    """Return the job that encloses this process, None if there is none.

    The shell of an salloc on another host is in no job here: only slurmd sets the node's name, and
    only for a job's own processes.
    """
    job_id = environ.get(names.JOB_ID, "")
    if not job_id or environ.get(names.NODE_NAME) != node:
        return None
    visible = environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = () if visible in NO_VISIBLE_DEVICES else tuple(visible.split(","))
    uuids = environ.get(GPUS_VARIABLE, "")
    return EnclosingJob(job_id, devices, tuple(uuids.split(",")) if uuids else ())


def find_foreign_device(
    job: EnclosingJob, reservations: Mapping[str, Reservation]
) -> tuple[str, Reservation] | None:
    """Return a device of the job's environment that another owner reserved, and the reservation.

    A shell can outlive its job, and everybody can set variables.
    """
    for device in (*job.devices, *job.uuids):
        holder = reservations.get(device)
        if holder and all(one.claim.job_id != job.job_id for one in holder.holders):
            return device, holder
    return None


def find_false_statement(
    job: EnclosingJob, reservations: Mapping[str, Reservation], uid: int
) -> str | None:
    """Return what is wrong in a job's environment by the ledger, None for nothing.

    `uid` is the caller's. A job of which the ledger has nothing is what its environment says.
    """
    held = {
        gpu: one.claim.uid
        for gpu, reservation in reservations.items()
        for one in reservation.holders
        if one.claim.job_id == job.job_id
    }
    if not held:
        return None
    if uid != 0 and uid not in held.values():
        return f"Slurm job {job.job_id} is another user's: unset {names.JOB_ID}"
    named = [one for one in (*job.devices, *job.uuids) if one.startswith(_UUID_PREFIXES)]
    if others := [one for one in named if one not in held]:
        return f"{others[0]} is none of the GPUs of Slurm job {job.job_id}: {', '.join(held)}"
    if len(job.devices) > len(held):
        return (
            f"CUDA_VISIBLE_DEVICES names {len(job.devices)} GPUs, and Slurm job {job.job_id} has"
            f" {len(held)} here: start this with the environment that the job had"
        )
    return None


def not_the_jobs_text(job: EnclosingJob, device: str, holder: str) -> str:
    """Say who reserved the device, and what to do if the job has ended."""
    return (
        f"{device} is reserved by {holder}, not by Slurm job {job.job_id}:"
        f" where that job is over, unset {names.JOB_ID}"
    )
