"""The few calls of NVML that need care, each with what older drivers and odd GPUs answer.

Source of the calls and their return codes: the NVML API reference and pynvml's own wrappers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pynvml

from canhazgpu.probe import fault_messages
from canhazgpu.probe.plausibility import larger_or_none

MIB = 1024 * 1024

# pynvml raises other things than NVMLError where a driver lacks a symbol (its mismatch error,
# AttributeError) or returns bytes that are no text (ValueError).
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
    """Return what went wrong, in NVML's words and with its code, and the next step."""
    if isinstance(error, pynvml.NVMLError):
        return fault_messages.nvml_fault(str(error), error.value)
    if isinstance(error, _MISSING_SYMBOL):
        return fault_messages.nvml_fault("Function Not Found", pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    return str(error) or type(error).__name__


def value_or_none(call: Callable[[], Any]) -> Any:
    """Return the call's answer, None where this driver has none to give for this GPU."""
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


def read_name(handle: Any) -> str:
    """Return the product's name."""
    return _read_text(pynvml.nvmlDeviceGetName, handle)


def _read_text(function: Callable[[Any], str | bytes], handle: Any) -> str:
    """Return a text whatever its bytes are: pynvml's decorator decodes strictly, so go below it."""
    value = getattr(function, "__wrapped__", function)(handle)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def read_memory_mb(handle: Any) -> tuple[int | None, int | None]:
    """Return used and total MiB; both None for a GPU without memory of its own.

    Version 2 leaves out what the driver itself reserved, as nvidia-smi does.
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
    """Return each process's pid once, in order, with its MiB, None where they are not told.

    Compute, graphics and MPS clients are three lists; a process may be in more than one.
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
    """Return one of NVML's lists of processes; drivers before 510 know its second version only."""
    name = f"nvmlDeviceGet{kind}RunningProcesses"
    processes: Iterable[Any] = _first_supported(
        lambda: getattr(pynvml, name)(handle), lambda: getattr(pynvml, f"{name}_v2")(handle)
    )
    return processes


def _first_supported(*calls: Callable[[], Any]) -> Any:
    """Return the first call's answer that the driver knows to give."""
    for call in calls[:-1]:
        try:
            return call()
        except pynvml.NVMLError as exc:
            if exc.value not in (*_UNSUPPORTED, pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH):
                raise
        except _MISSING_SYMBOL:
            pass
    return calls[-1]()
