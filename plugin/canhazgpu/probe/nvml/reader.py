"""Read the GPUs through NVML (pynvml); the failure of one GPU is a fault of that GPU alone."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pynvml

from canhazgpu.errors import ScanError
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.probe import fault_messages
from canhazgpu.probe.cuda_index import with_cuda_indices
from canhazgpu.probe.nvml.calls import (
    NVML_ERRORS,
    nvml_error_text,
    read_memory_mb,
    read_name,
    read_pci_address,
    read_processes_mb,
    read_uuid,
    value_or_none,
)
from canhazgpu.probe.nvml.health import read_health
from canhazgpu.probe.nvml.mig_devices import MigCapabilities, read_mig_device_numbers
from canhazgpu.probe.nvml.utilization import is_hanging, read_utilization
from canhazgpu.probe.plausibility import (
    printable_line,
    process_with_memory,
    with_plausibility_faults,
)

MAX_GPUS = 1024
"""Of one node; a scan for each of 4 billion would not end."""
MAX_MIG_INSTANCES = 128
"""Of one GPU; the largest has 7."""
_NO_SUCH_INSTANCE = (pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_INVALID_ARGUMENT)


def read_gpus(library: str = "") -> tuple[GpuReading, ...]:
    """Return a reading of every GPU of this node, in the order of NVML's indices.

    A GPU in MIG mode is replaced by its instances. `library` is the absolute path of the NVML
    library; with an empty one the dynamic loader finds it. Raises `ScanError` where NVML fails as a
    whole.
    """
    with nvml_session(library):
        try:
            count = pynvml.nvmlDeviceGetCount()
        except NVML_ERRORS as exc:
            raise ScanError(nvml_error_text(exc)) from exc
        if count > MAX_GPUS:
            raise ScanError(fault_messages.impossible_count_fault("GPUs", count))
        capabilities = MigCapabilities()
        found = [reading for index in range(count) for reading in _read_gpu(index, capabilities)]
        addresses = {index: read_pci_address(index) for index in range(count)}
        readings = with_plausibility_faults(with_cuda_indices(found, addresses))
        return _with_utilization(readings)


@contextlib.contextmanager
def nvml_session(library: str) -> Iterator[None]:
    """Keep NVML initialised; sessions may be nested, and only the outermost takes time.

    NVML counts its initialisations: only the last shutdown ends it (NVML API reference,
    nvmlShutdown). `library` and errors are those of `read_gpus`.
    """
    try:
        if library:
            # pynvml loads "libnvidia-ml.so.1" by name, and gets the library that is already loaded
            # under that SONAME.
            ctypes.CDLL(library)
    except OSError as exc:
        raise ScanError(
            fault_messages.library_fault(f"cannot load the NVIDIA library: {exc}")
        ) from exc
    try:
        pynvml.nvmlInit()
    except NVML_ERRORS as exc:
        raise ScanError(nvml_error_text(exc)) from exc
    try:
        yield
    finally:
        if not is_hanging():
            with contextlib.suppress(*NVML_ERRORS):
                pynvml.nvmlShutdown()


def _with_utilization(readings: tuple[GpuReading, ...]) -> tuple[GpuReading, ...]:
    """Add the utilization of whole GPUs without a fault; the driver has none of a MIG instance."""
    whole = [one.index for one in readings if one.fault is None and not one.is_mig_instance]
    known = read_utilization(whole)
    return tuple(
        replace(one, utilization_percent=known[one.index])
        if one.index in known and not one.is_mig_instance
        else one
        for one in readings
    )


def _read_gpu(index: int, capabilities: MigCapabilities) -> tuple[GpuReading, ...]:
    """Read one GPU, or each of its MIG instances.

    A reading with a fault keeps the values read before it, above all the UUID.
    """
    reading = GpuReading(index, "", None, "", None, None)
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        reading = replace(reading, uuid=read_uuid(handle))
        if _is_mig(handle):
            return _read_instances(reading, handle, capabilities)
        number = value_or_none(lambda: pynvml.nvmlDeviceGetMinorNumber(handle))
    except NVML_ERRORS as exc:
        return (replace(reading, fault=nvml_error_text(exc)),)
    reading = replace(reading, device_number=number, health=read_health(handle))
    return (_with_usage(reading, handle),)


def _with_usage(reading: GpuReading, handle: Any) -> GpuReading:
    """Add name, processes and memory, of a GPU or of a MIG instance.

    Memory is read last: it then includes a process that starts in between.
    """
    try:
        reading = replace(reading, name=printable_line(read_name(handle)))
        processes = tuple(
            process_with_memory(pid, memory) for pid, memory in read_processes_mb(handle)
        )
        reading = replace(reading, processes=processes)
        used_mb, total_mb = read_memory_mb(handle)
        if reading.mig_index is not None and used_mb is None:
            # Every instance has memory: one that reports none is not free of use.
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    except NVML_ERRORS as exc:
        return replace(reading, fault=nvml_error_text(exc))
    return replace(reading, memory_used_mb=used_mb, memory_total_mb=total_mb)


def _is_mig(handle: Any) -> bool:
    modes = value_or_none(lambda: pynvml.nvmlDeviceGetMigMode(handle))
    return modes is not None and modes[0] == pynvml.NVML_DEVICE_MIG_ENABLE


def _read_instances(
    gpu: GpuReading, handle: Any, capabilities: MigCapabilities
) -> tuple[GpuReading, ...]:
    """Read the MIG instances of a GPU; without any, return the GPU, which then has a fault.

    An instance has no device file /dev/nvidiaN of its own and hence no device number. Its health
    is that of the GPU.
    """
    gpu = replace(gpu, health=read_health(handle))
    number = _device_number_or_none(handle)
    found = []
    count = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    if count > MAX_MIG_INSTANCES:
        fault = fault_messages.impossible_count_fault("MIG instances", count)
        return (replace(gpu, fault=fault),)
    for mig_index in range(count):
        reading = replace(gpu, uuid="", parent_uuid=gpu.uuid, mig_index=mig_index)
        try:
            instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, mig_index)
        except NVML_ERRORS as exc:
            if getattr(exc, "value", None) not in _NO_SUCH_INSTANCE:
                found.append(replace(reading, fault=nvml_error_text(exc)))
            continue
        devices = read_mig_device_numbers(number, instance, capabilities)
        found.append(_read_instance(replace(reading, mig_devices=devices), instance))
    return tuple(found) or (replace(gpu, fault=fault_messages.MIG_WITHOUT_INSTANCES),)


def _device_number_or_none(handle: Any) -> int | None:
    try:
        return int(pynvml.nvmlDeviceGetMinorNumber(handle))
    except NVML_ERRORS:
        return None


def _read_instance(reading: GpuReading, handle: Any) -> GpuReading:
    try:
        reading = replace(reading, uuid=read_uuid(handle))
    except NVML_ERRORS as exc:
        return replace(reading, fault=nvml_error_text(exc))
    return _with_usage(reading, handle)
