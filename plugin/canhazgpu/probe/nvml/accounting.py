"""Switch on the driver's accounting, and read what it has kept of the processes on some GPUs.

The driver keeps 4000 processes of each GPU, until accounting is switched off or the driver is
unloaded (NVML API reference, Accounting Statistics). Only root may switch it on.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pynvml

from canhazgpu.gpu.accounting import AccountedGpu, AccountedProcess, plausible_process
from canhazgpu.probe.nvml.calls import MIB, NVML_ERRORS, read_uuid
from canhazgpu.probe.nvml.reader import nvml_session


def switch_on_accounting(library: str) -> tuple[str, ...]:
    """Switch it on for each GPU where it is off; return the UUIDs of those.

    A GPU that has no accounting, as one in MIG mode, is left alone. Raises `ScanError`.
    """
    switched = []
    with nvml_session(library):
        for handle in _handles():
            try:
                if pynvml.nvmlDeviceGetAccountingMode(handle) == pynvml.NVML_FEATURE_DISABLED:
                    pynvml.nvmlDeviceSetAccountingMode(handle, pynvml.NVML_FEATURE_ENABLED)
                    switched.append(read_uuid(handle))
            except NVML_ERRORS:
                continue
    return tuple(switched)


def read_accounting(library: str, gpus: Collection[str]) -> tuple[AccountedGpu, ...]:
    """Return what the driver has kept of these GPUs (UUIDs) that have accounting on."""
    found = []
    with nvml_session(library):
        for handle in _handles():
            try:
                uuid = read_uuid(handle)
                if uuid in gpus:
                    found.append(_read_gpu(uuid, handle))
            except NVML_ERRORS:
                continue
    return tuple(found)


def _handles() -> list[Any]:
    handles = []
    try:
        count = pynvml.nvmlDeviceGetCount()
    except NVML_ERRORS:
        return []
    for index in range(count):
        try:
            handles.append(pynvml.nvmlDeviceGetHandleByIndex(index))
        except NVML_ERRORS:
            continue
    return handles


def _read_gpu(uuid: str, handle: Any) -> AccountedGpu:
    pids = pynvml.nvmlDeviceGetAccountingPids(handle)
    size = int(pynvml.nvmlDeviceGetAccountingBufferSize(handle))
    processes = [found for pid in pids if (found := _read_process(handle, pid)) is not None]
    # One that is lost between the two calls makes room for another: what is left is not all.
    return AccountedGpu(
        uuid, 0.0, tuple(processes), len(processes) < len(pids) or len(pids) >= size
    )


def _read_process(handle: Any, pid: int) -> AccountedProcess | None:
    try:
        stats = pynvml.nvmlDeviceGetAccountingStats(handle, pid)
    except NVML_ERRORS:
        return None
    peak = stats.maxMemoryUsage
    return plausible_process(
        pid,
        int(stats.startTime),
        int(stats.time),
        int(stats.gpuUtilization),
        None if peak is None else int(peak) // MIB,
        runs=bool(stats.isRunning),
    )
