"""Hosts where people too get their GPUs from Slurm (`run.via_slurm`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.errors import InputError

if TYPE_CHECKING:
    from canhazgpu.service.grants import GpuRequest


def refuse_unsupported_via_slurm(request: GpuRequest) -> None:
    """Raise `InputError` for options that cannot be passed on to Slurm."""
    if request.selectors or request.force or request.wait_s is not None:
        raise InputError(
            "Slurm picks the GPUs of this host and the order (run.via_slurm): use --gpus, without"
            " --force, --nonblock and --wait"
        )
