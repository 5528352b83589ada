"""The order of a node's GPUs where Slurm detects them (``AutoDetect=``); pure.

Measured with the plugins of 22.05, 24.11 and 26.05. ``nvml`` sorts the GPUs that it recognises as
NVML does, by PCI bus, whatever the order of ``File=`` and ``Gres=``; a GPU in ``gres.conf`` whose
type is in no GPU's name is not recognised and comes behind them, by its file. ``nvidia`` sorts all
by file. Without the plugin or its library, the order is that of ``gres.conf``. Which of these
holds is seen only where all come to the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from canhazgpu.errors import InputError
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.schedulers.slurm.conf.declared_gpus import DeclaredGpus
from canhazgpu.schedulers.slurm.conf.device_mapping import device_numbers
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice

Devices = tuple[GpuDevice, ...]

BY_PCI_BUS = "nvml"
BY_FILE = "nvidia"
MAX_KINDS = 6
"""More types of GPUs on one node are not looked through."""


def detected_order(
    autodetect: str,
    listed: Sequence[GpuDevice],
    declared: Sequence[DeclaredGpus],
    gpus: Sequence[GpuReading],
) -> Devices | None:
    """Return the GPUs in Slurm's order, None where Slurm alone knows it.

    `listed` are the GPUs in the order of ``gres.conf``, `declared` those of ``Gres=``, empty if
    they are not known. `gpus` are those that the driver shows, in NVML's order.
    """
    indices = {gpu.device_number: index for index, gpu in enumerate(gpus)}
    if autodetect not in (BY_PCI_BUS, BY_FILE) or None in indices or len(indices) < len(gpus):
        return None
    if any(gpu.is_mig_instance for gpu in gpus):
        return None
    if not listed:
        return _unlisted_order(autodetect, declared, gpus)
    try:
        numbers = {device: _number(device) for device in listed}
    except InputError:
        return None
    if not set(numbers.values()) <= indices.keys() or len(numbers) < len(listed):
        return None
    found = {tuple(listed), *_orders(listed, numbers, indices)}
    return tuple(listed) if len(found) == 1 else None


def _unlisted_order(
    autodetect: str, declared: Sequence[DeclaredGpus], gpus: Sequence[GpuReading]
) -> Devices | None:
    """Return all GPUs of the driver, None unless each is one of those of ``Gres=``."""
    kinds = [_recognised_kind(gpu, declared) for gpu in gpus]
    counts = {one.kind: one.count for one in declared}
    if declared and counts != {kind: kinds.count(kind) for kind in kinds}:
        return None
    found = list(zip(kinds, (gpu.device_number for gpu in gpus), strict=True))
    if autodetect == BY_FILE:
        found.sort(key=lambda one: one[1] or 0)
    return tuple(GpuDevice(kind, (f"/dev/nvidia{number}",)) for kind, number in found)


def _recognised_kind(gpu: GpuReading, declared: Sequence[DeclaredGpus]) -> str:
    """Return the longest type of ``Gres=`` that is in the GPU's name as Slurm writes it."""
    name = gpu.name.lower().replace(" ", "_")
    fitting = [one.kind for one in declared if one.kind.lower() in name]
    return max(fitting, key=len, default="")


def _number(device: GpuDevice) -> int:
    """Return the number of a whole GPU's only file; raises `InputError` for any other device."""
    found = device_numbers(device)
    if len(found.gpus) != 1 or found.capabilities:
        raise InputError(f"{','.join(device.files)} is no whole GPU")
    return next(iter(found.gpus))


def _orders(
    listed: Sequence[GpuDevice],
    numbers: dict[GpuDevice, int],
    indices: dict[int | None, int],
) -> Iterator[Devices]:
    """Yield each order that Slurm can come to, by which types it does not recognise."""
    kinds = sorted({device.kind for device in listed})
    if len(kinds) > MAX_KINDS:
        yield ()
        return
    for size in range(len(kinds) + 1):
        for unknown in itertools.combinations(kinds, size):
            recognised = [one for one in listed if one.kind not in unknown]
            others = [one for one in listed if one.kind in unknown]
            yield (
                *sorted(recognised, key=lambda one: indices[numbers[one]]),
                *sorted(others, key=lambda one: numbers[one]),
            )
