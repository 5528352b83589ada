"""Check the readings of a driver for impossible values; helpers that both sources use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from canhazgpu.errors import InputError
from canhazgpu.gpu.ids import parse_uuid
from canhazgpu.gpu.scan import GpuProcess, GpuReading
from canhazgpu.gpu.usage import MAX_PID
from canhazgpu.probe import fault_messages

MAX_DRIVER_TEXT = 120
"""Characters of the longest text of a driver: names and error messages are cut there."""


def process_with_memory(pid: int, memory_mb: int | None) -> GpuProcess:
    """Return a process with what a driver reports; `with_process_details` adds the rest."""
    return GpuProcess(pid, None, None, None, memory_mb)


def larger_or_none(known: int | None, memory: int | None) -> int | None:
    """Return the larger amount of memory of one process; None if either is unknown."""
    return None if known is None or memory is None else max(known, memory)


def printable_line(text: str) -> str:
    """Return a driver's text as one short line without control characters."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text.strip())
    return shown if len(shown) <= MAX_DRIVER_TEXT else shown[: MAX_DRIVER_TEXT - 3] + "..."


def with_plausibility_faults(readings: Iterable[GpuReading]) -> tuple[GpuReading, ...]:
    """Return the readings, with a fault for each that has impossible values.

    Reservations name UUIDs. A malformed UUID is removed, and GPUs that share a UUID have a fault.
    """
    found = [_with_valid_uuid(reading) for reading in readings]
    times = Counter(reading.uuid for reading in found)
    return tuple(_with_plausibility_fault(reading, times) for reading in found)


def _with_valid_uuid(reading: GpuReading) -> GpuReading:
    if not reading.uuid:
        return replace(reading, fault=reading.fault or fault_messages.NO_UUID)
    try:
        parse_uuid(reading.uuid)
    except InputError:
        fault = reading.fault or fault_messages.impossible_uuid_fault(printable_line(reading.uuid))
        return replace(reading, uuid="", fault=fault)
    return reading


def _with_plausibility_fault(reading: GpuReading, times: Counter[str]) -> GpuReading:
    if reading.fault is not None:
        return reading
    if times[reading.uuid] > 1:
        return replace(reading, fault=fault_messages.shared_uuid_fault(reading.uuid))
    for process in reading.processes:
        if not 0 < process.pid <= MAX_PID:
            return replace(reading, fault=fault_messages.impossible_pid_fault(process.pid))
    return reading
