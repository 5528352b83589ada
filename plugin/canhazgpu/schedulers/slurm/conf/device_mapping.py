"""Map Slurm's numbers of a job's GPUs to the GPUs of NVML; pure.

Slurm's number is the position of the device in ``gres.conf``; the names of its device files say
which GPU it is. The N of ``/dev/nvidiaN`` is NVML's minor number, which identifies a whole GPU. The
N of ``/dev/nvidia-caps/nvidia-capN`` identifies a MIG instance: the file is that of the compute
instance, or that of the GPU instance which holds it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from canhazgpu.errors import InputError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice

_GPU_FILE = re.compile(r"(?:.*/)?nvidia([0-9]{1,6})")
_CAPABILITY_FILE = re.compile(r"(?:.*/)?nvidia-cap([0-9]{1,7})")
_SHARED_FILE = re.compile(r"(?:.*/)?nvidia(?:ctl|-uvm|-uvm-tools|-modeset)")
"""Device files that every CUDA program opens; they identify no GPU."""
_MIG_ADMIN_CAPABILITIES = frozenset({1, 2})
"""The capabilities ``config`` and ``monitor`` in mig-minors: of the driver, not of an instance."""
COMPARE = "compare gres.conf with 'nvidia-smi -L'"


@dataclass(frozen=True, slots=True)
class DeviceNumbers:
    """The numbers in the names of a device's files; `capabilities` only for a MIG instance."""

    gpus: frozenset[int]
    capabilities: frozenset[int]


def device_numbers(device: GpuDevice) -> DeviceNumbers:
    """Return the numbers of a device; raises `InputError` for a file that is no GPU's."""
    for file in device.files:
        if not any(
            pattern.fullmatch(file) for pattern in (_GPU_FILE, _CAPABILITY_FILE, _SHARED_FILE)
        ):
            raise InputError(
                f"which the driver does not show: {file} is no device file of an NVIDIA GPU;"
                f" {COMPARE}"
            )
    capabilities = frozenset(_numbers(_CAPABILITY_FILE, device.files)) - _MIG_ADMIN_CAPABILITIES
    return DeviceNumbers(frozenset(_numbers(_GPU_FILE, device.files)), capabilities)


def gpus_at_positions(
    positions: Sequence[int], devices: Sequence[GpuDevice], gpus: Sequence[GpuReading]
) -> tuple[AssignedGpu, ...]:
    """Return the GPU at each position, in the same order. `devices` are in Slurm's order.

    Raises `InputError` for a position without a device, and for a device whose GPU or instance the
    driver does not show, or that may be one of several, and for two positions of one GPU.
    """
    found = tuple(_gpu_at(position, devices, gpus) for position in positions)
    for first, second in itertools.combinations(found, 2):
        if first.uuid == second.uuid:
            raise InputError(
                f"Slurm counts {first.uuid} as GPU {first.position} and as GPU {second.position}"
                f" ({first.device_file}, {second.device_file}): {COMPARE}"
            )
    return found


def _gpu_at(position: int, devices: Sequence[GpuDevice], gpus: Sequence[GpuReading]) -> AssignedGpu:
    if position >= len(devices):
        raise InputError(
            f"Slurm gave GPU {position}, but by slurm.conf and gres.conf this node has files for"
            f" {len(devices)} GPUs: {COMPARE}"
        )
    device = devices[position]
    try:
        gpu = find_gpu(device, gpus)
    except InputError as exc:
        raise InputError(f"Slurm gave GPU {position} ({','.join(device.files)}), {exc}") from exc
    file = _own_device_file(device, gpu)
    return AssignedGpu(position, gpu.uuid, gpu.index, file, gpu.cuda_index)


def find_gpu(device: GpuDevice, gpus: Sequence[GpuReading]) -> GpuReading:
    """Return the GPU or the MIG instance that the device's files are of; raises `InputError`.

    The error's text continues a sentence that names the device.
    """
    numbers = device_numbers(device)
    found = (
        _find_instance(numbers, [gpu for gpu in gpus if gpu.is_mig_instance])
        if numbers.capabilities
        else _find_whole_gpu(numbers, gpus)
    )
    if not found.uuid:
        raise InputError(f"which the driver does not show by a UUID: {found.fault}; {COMPARE}")
    return found


def has_unlisted_gpus(devices: Sequence[GpuDevice], gpus: Sequence[GpuReading]) -> bool:
    """Tell whether the driver shows a GPU whose ``/dev/nvidiaN`` is no file of the devices.

    Slurm denies a job only the files of the devices that it counts (measured on 22.05). Raises
    `InputError` for a file that is no GPU's.
    """
    listed = frozenset[int]().union(*(device_numbers(device).gpus for device in devices))
    return any(_gpu_number(gpu) not in listed for gpu in gpus)


def _gpu_number(gpu: GpuReading) -> int | None:
    """Return the N of the ``/dev/nvidiaN`` by which a GPU or an instance is opened."""
    return gpu.mig_devices.gpu if gpu.mig_devices else gpu.device_number


def count_present(devices: Sequence[GpuDevice], gpus: Sequence[GpuReading]) -> int:
    """Return how many of the devices the driver shows; without devices, how many GPUs it shows.

    An instance that may be there counts as there.
    """
    instances = [gpu for gpu in gpus if gpu.is_mig_instance]
    if not devices or not instances:
        return len(gpus)
    any_unknown = any(map(_has_unknown_numbers, instances))
    return sum(
        (any_unknown and is_instance_device(device)) or _is_present(device, gpus)
        for device in devices
    )


def is_instance_device(device: GpuDevice) -> bool:
    """Tell whether the device is a MIG instance, by its files."""
    return bool(set(_numbers(_CAPABILITY_FILE, device.files)) - _MIG_ADMIN_CAPABILITIES)


def _is_present(device: GpuDevice, gpus: Sequence[GpuReading]) -> bool:
    try:
        find_gpu(device, gpus)
    except InputError:
        return False
    return True


def _find_whole_gpu(numbers: DeviceNumbers, gpus: Sequence[GpuReading]) -> GpuReading:
    if len(numbers.gpus) != 1:
        raise InputError(f"which are the files of {len(numbers.gpus)} GPUs, not of one: {COMPARE}")
    for gpu in gpus:
        if gpu.device_number in numbers.gpus:
            return gpu
    parts = [gpu for gpu in gpus if gpu.mig_devices and gpu.mig_devices.gpu in numbers.gpus]
    if parts:
        raise InputError(
            f"which is divided into the MIG instances {_names(parts)}: name the device files of"
            " each instance in gres.conf, with MultipleFiles="
        )
    raise InputError(f"which the driver does not show: {COMPARE}")


def _find_instance(numbers: DeviceNumbers, instances: Sequence[GpuReading]) -> GpuReading:
    fitting = [one for one in instances if _fits(numbers, one)]
    exact = [one for one in fitting if _compute_instance(one) in numbers.capabilities]
    if len(exact) == 1:
        return exact[0]
    if any(_has_unknown_numbers(one) for one in instances):
        raise InputError(
            "and which MIG instance that is cannot be known: the driver's files"
            " /proc/driver/nvidia-caps/mig-minors and /proc/driver/nvidia/capabilities are not to"
            " be read, or contradict each other"
        )
    if len(fitting) > 1:
        raise InputError(
            f"which is the GPU instance of several MIG instances, {_names(fitting)}: name the"
            " compute instance's file in gres.conf, with MultipleFiles="
        )
    if not fitting:
        raise InputError(
            "and the driver shows no MIG instance with these device files: compare gres.conf with"
            " 'nvidia-smi -L' and /proc/driver/nvidia-caps/mig-minors; instances that were made"
            " anew may have other numbers"
        )
    return fitting[0]


def _fits(numbers: DeviceNumbers, instance: GpuReading) -> bool:
    known = instance.mig_devices
    if known is None or (numbers.gpus and numbers.gpus != {known.gpu}):
        return False
    return numbers.capabilities <= {known.gpu_instance, known.compute_instance}


def _compute_instance(instance: GpuReading) -> int | None:
    return instance.mig_devices.compute_instance if instance.mig_devices else None


def _has_unknown_numbers(instance: GpuReading) -> bool:
    known = instance.mig_devices
    return known is None or None in (known.gpu, known.gpu_instance, known.compute_instance)


def _own_device_file(device: GpuDevice, gpu: GpuReading) -> str:
    """Return the device's file that no other GPU or instance has, as far as there is one."""
    instance = gpu.mig_devices
    pattern = _CAPABILITY_FILE if instance else _GPU_FILE
    by_number = {number: file for file in device.files for number in _numbers(pattern, (file,))}
    wanted = (
        (instance.compute_instance, instance.gpu_instance) if instance else (gpu.device_number,)
    )
    return next(by_number[one] for one in wanted if one in by_number)


def _numbers(pattern: re.Pattern[str], files: Iterable[str]) -> Iterator[int]:
    return (int(match[1]) for match in map(pattern.fullmatch, files) if match)


def _names(gpus: Iterable[GpuReading]) -> str:
    return ", ".join(gpu.display_index for gpu in gpus)
