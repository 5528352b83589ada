"""Calls of NVML that differ between drivers and GPUs.

Source of the calls and their return codes: the NVML API reference and pynvml's own wrappers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pynvml

from canhazgpu.probe import fault_messages
from canhazgpu.probe.cuda_index import PciAddress, parse_pci_address
from canhazgpu.probe.plausibility import larger_or_none

MIB = 1024 * 1024

# pynvml raises other errors than NVMLError too: its mismatch error or AttributeError where a driver
# lacks a symbol, ValueError for bytes that are no text.
NVML_ERRORS = (
    pynvml.NVMLError,
    pynvml.NVMLLibraryMismatchError,
    AttributeError,
    ValueError,
    OSError,
)

_UNSUPPORTED = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
)
_MISSING_SYMBOL = (pynvml.NVMLLibraryMismatchError, AttributeError)


def nvml_error_text(error: Exception) -> str:
    """Return NVML's message with its code and the next step."""
    if isinstance(error, pynvml.NVMLError):
        return fault_messages.nvml_fault(str(error), error.value)
    if isinstance(error, _MISSING_SYMBOL):
        return fault_messages.nvml_fault("Function Not Found", pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    return str(error) or type(error).__name__


def value_or_none(call: Callable[[], Any]) -> Any:
    """Return the call's result, None where the driver does not support it for this GPU."""
    try:
        return call()
    except pynvml.NVMLError as exc:
        if exc.value in _UNSUPPORTED:
            return None
        raise
    except _MISSING_SYMBOL:
        return None


def read_uuid(handle: Any) -> str:
    """Return the UUID of a GPU or a MIG instance."""
    return _read_text(pynvml.nvmlDeviceGetUUID, handle)


def read_pci_address(index: int) -> PciAddress | None:
    """Return the PCI address of the GPU with this index of NVML, None where it is not to be had."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        text = pynvml.nvmlDeviceGetPciInfo(handle).busId
        return parse_pci_address(text.decode() if isinstance(text, bytes) else text)
    except NVML_ERRORS:
        return None


def read_name(handle: Any) -> str:
    """Return the product's name."""
    return _read_text(pynvml.nvmlDeviceGetName, handle)


def _read_text(function: Callable[[Any], str | bytes], handle: Any) -> str:
    """Return a text, of any bytes: pynvml's decorator decodes strictly and is bypassed."""
    value = getattr(function, "__wrapped__", function)(handle)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def read_memory_mb(handle: Any) -> tuple[int | None, int | None]:
    """Return used and total MiB; both None for a GPU without memory of its own.

    Version 2 does not count the memory that the driver reserves, as nvidia-smi does not.
    """
    try:
        memory = _first_supported(
            lambda: pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2),
            lambda: pynvml.nvmlDeviceGetMemoryInfo(handle),
        )
    except pynvml.NVMLError as exc:
        if exc.value == pynvml.NVML_ERROR_NOT_SUPPORTED:
            return None, None
        raise
    return memory.used // MIB, memory.total // MIB


def read_processes_mb(handle: Any) -> list[tuple[int, int | None]]:
    """Return the pids in order, each once, with their MiB; None for unknown memory.

    NVML has three lists: compute, graphics and MPS clients. A process may be in several of them.
    """
    found: dict[int, int | None] = {}
    for process in (
        *_running_processes("Compute", handle),
        *(value_or_none(lambda: _running_processes("Graphics", handle)) or ()),
        *(value_or_none(lambda: _running_processes("MPSCompute", handle)) or ()),
    ):
        found[process.pid] = larger_or_none(found.get(process.pid, 0), process.usedGpuMemory)
    return [
        (pid, None if memory is None else memory // MIB) for pid, memory in sorted(found.items())
    ]


def _running_processes(kind: str, handle: Any) -> Iterable[Any]:
    """Return one of NVML's lists of processes; drivers before 510 know only its second version."""
    name = f"nvmlDeviceGet{kind}RunningProcesses"
    processes: Iterable[Any] = _first_supported(
        lambda: getattr(pynvml, name)(handle), lambda: getattr(pynvml, f"{name}_v2")(handle)
    )
    return processes


def _first_supported(*calls: Callable[[], Any]) -> Any:
    """Return the result of the first call that the driver supports."""
    for call in calls[:-1]:
        try:
            return call()
        except pynvml.NVMLError as exc:
            if exc.value not in (*_UNSUPPORTED, pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH):
                raise
        except _MISSING_SYMBOL:
            pass
    return calls[-1]()
