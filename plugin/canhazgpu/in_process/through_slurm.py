"""Hosts whose GPUs Slurm gives to people too (`run.via_slurm`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.errors import InputError

if TYPE_CHECKING:
    from canhazgpu.service.grants import GpuRequest


def refuse_through_slurm(asked: GpuRequest) -> None:
    """Refuse what Slurm would not see to where it gives the GPUs."""
    if asked.selectors or asked.force or asked.wait_s is not None:
        raise InputError(
            "Slurm picks the GPUs of this host and the order (run.via_slurm): use --gpus, without"
            " --force, --nonblock and --wait"
        )
