"""Read the GPUs through NVML (pynvml), GPU by GPU: one that fails does not hide the others.

Source of the calls and their return codes: the NVML API reference and pynvml's own wrappers.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pynvml

from canhazgpu.errors import ScanError
from canhazgpu.gpu.scan import GpuProcess, GpuReading
from canhazgpu.probe.processes import JobOf, described, no_job

MIB = 1024 * 1024

# pynvml raises other things than NVMLError where a driver lacks a symbol (its mismatch error,
# AttributeError) or returns bytes that are no text (ValueError).
NVML_FAULTS = (
    pynvml.NVMLError,
    pynvml.NVMLLibraryMismatchError,
    AttributeError,
    ValueError,
    OSError,
)

_NOT_TOLD = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
)


def read_gpus(library: str = "", job_of: JobOf = no_job) -> tuple[GpuReading, ...]:
    """Return a reading of every GPU of this node, in the order of NVML's indices.

    `library` is the absolute path of the NVML library, empty for the dynamic loader's. Raises
    `ScanError` where NVML as a whole does not work.
    """
    with _nvml(library):
        try:
            count = pynvml.nvmlDeviceGetCount()
        except NVML_FAULTS as exc:
            raise ScanError(f"cannot count the GPUs: {fault_text(exc)}") from exc
        return tuple(_read_gpu(index, job_of) for index in range(count))


def fault_text(error: Exception) -> str:
    """Return what went wrong, with NVML's own code where there is one."""
    code = getattr(error, "value", None)
    text = str(error) or type(error).__name__
    return f"{text} (NVML error {code})" if isinstance(code, int) else text


@contextlib.contextmanager
def _nvml(library: str) -> Iterator[None]:
    try:
        if library:
            # pynvml loads "libnvidia-ml.so.1" by name; a library already loaded under that SONAME
            # is the one it then gets.
            ctypes.CDLL(library)
        pynvml.nvmlInit()
    except NVML_FAULTS as exc:
        raise ScanError(f"cannot use the NVIDIA driver: {fault_text(exc)}") from exc
    try:
        yield
    finally:
        with contextlib.suppress(*NVML_FAULTS):
            pynvml.nvmlShutdown()


def _read_gpu(index: int, job_of: JobOf) -> GpuReading:
    """Read one GPU; what was learned before a fault, its identity above all, is kept beside it."""
    reading = GpuReading(index, "", None, "", None, None)
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        reading = replace(reading, uuid=_text(pynvml.nvmlDeviceGetUUID(handle)))
        reading = replace(reading, device_number=pynvml.nvmlDeviceGetMinorNumber(handle))
        reading = replace(reading, name=_text(pynvml.nvmlDeviceGetName(handle)))
        used_mb, total_mb = _memory_mb(handle)
        return replace(
            reading,
            memory_used_mb=used_mb,
            memory_total_mb=total_mb,
            processes=_processes(handle, job_of),
        )
    except NVML_FAULTS as exc:
        return replace(reading, fault=fault_text(exc))


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _memory_mb(handle: Any) -> tuple[int | None, int | None]:
    """Return used and total MiB; both None for a GPU without memory of its own.

    Version 2 leaves out what the driver itself reserved, as nvidia-smi does.
    """
    try:
        memory = _first_told(
            lambda: pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2),
            lambda: pynvml.nvmlDeviceGetMemoryInfo(handle),
        )
    except pynvml.NVMLError as exc:
        if exc.value == pynvml.NVML_ERROR_NOT_SUPPORTED:
            return None, None
        raise
    return memory.used // MIB, memory.total // MIB


def _first_told(*calls: Callable[[], Any]) -> Any:
    """Return the first call's answer that the driver knows to give."""
    for call in calls[:-1]:
        try:
            return call()
        except pynvml.NVMLError as exc:
            if exc.value not in (*_NOT_TOLD, pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH):
                raise
        except (AttributeError, pynvml.NVMLLibraryMismatchError):
            pass
    return calls[-1]()


def _processes(handle: Any, job_of: JobOf) -> tuple[GpuProcess, ...]:
    """Return the GPU's processes, each once, in order of pid.

    Compute, graphics and MPS clients are three lists; a process may be in more than one.
    """
    found: dict[int, int | None] = {}
    for process in (
        *_running("Compute", handle),
        *_optional("Graphics", handle),
        *_optional("MPSCompute", handle),
    ):
        found[process.pid] = _larger(found.get(process.pid, 0), process.usedGpuMemory)
    return tuple(
        described(pid, None if memory is None else memory // MIB, job_of)
        for pid, memory in sorted(found.items())
    )


def _running(kind: str, handle: Any) -> Iterable[Any]:
    """Return one of NVML's lists of processes; drivers before 510 know its second version only."""
    name = f"nvmlDeviceGet{kind}RunningProcesses"
    processes: Iterable[Any] = _first_told(
        lambda: getattr(pynvml, name)(handle), lambda: getattr(pynvml, f"{name}_v2")(handle)
    )
    return processes


def _optional(kind: str, handle: Any) -> Iterable[Any]:
    try:
        return _running(kind, handle)
    except pynvml.NVMLError as exc:
        if exc.value in _NOT_TOLD:
            return ()
        raise


def _larger(known: int | None, memory: int | None) -> int | None:
    return None if known is None or memory is None else max(known, memory)
