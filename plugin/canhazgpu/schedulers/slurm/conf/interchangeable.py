"""The GPUs that are as good as those that Slurm counted for a job; pure.

Where canhazgpu picks a job's GPUs, Slurm's numbers only say how many. On a node with several types,
or with MIG instances beside whole GPUs, they also say of which kind.
"""

from __future__ import annotations

from collections.abc import Sequence

from canhazgpu.errors import InputError
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.schedulers.slurm.conf.device_mapping import (
    find_gpu,
    gpus_at_positions,
    is_instance_device,
)
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice


def interchangeable_gpus(
    positions: Sequence[int],
    devices: Sequence[GpuDevice],
    gpus: Sequence[GpuReading],
) -> frozenset[str] | None:
    """Return the GPUs (UUIDs) of the kind of the job's positions, None where all are of one kind.

    A job with GPUs of several kinds gets exactly those at its positions. Raises `InputError` where
    the job's own positions cannot be mapped and there are too few others of their kind.
    """
    kinds = {_kind(device) for device in devices}
    if len(kinds) <= 1 and not any(gpu.is_mig_instance for gpu in gpus):
        return None
    own_kinds = _kinds_at(positions, devices)
    if devices and len(own_kinds) == 1:
        found = _gpus_of_kind(own_kinds, devices, gpus)
        if len(found) >= len(positions):
            return found
    assigned = gpus_at_positions(positions, devices, gpus)
    return frozenset(gpu.uuid for gpu in assigned)


def are_of_several_kinds(positions: Sequence[int], devices: Sequence[GpuDevice]) -> bool:
    """Tell whether a job with these positions has GPUs of several kinds."""
    return len(_kinds_at(positions, devices)) > 1


def _kinds_at(positions: Sequence[int], devices: Sequence[GpuDevice]) -> set[tuple[str, bool]]:
    return {_kind(devices[one]) for one in positions if one < len(devices)}


def _kind(device: GpuDevice) -> tuple[str, bool]:
    """Return the type, and whether the device is a MIG instance."""
    return device.kind, is_instance_device(device)


def _gpus_of_kind(
    kinds: set[tuple[str, bool]], devices: Sequence[GpuDevice], gpus: Sequence[GpuReading]
) -> frozenset[str]:
    found = set()
    for device in devices:
        if _kind(device) in kinds:
            try:
                found.add(find_gpu(device, gpus).uuid)
            except InputError:
                continue  # a device that is not there is no choice
    return frozenset(found)
