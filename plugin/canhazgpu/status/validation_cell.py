"""The VALIDATION cell: the use of a GPU as the scan found it; pure."""

from __future__ import annotations

from canhazgpu.allocation.coverage import owner_is_known
from canhazgpu.gpu.scan import GpuProcess
from canhazgpu.gpu.usage import (
    MAX_PROCESSES_SHOWN,
    GpuState,
    Usage,
    memory_text,
    processes_text,
    users_text,
)
from canhazgpu.status.node_status import GpuStatus

NO_USAGE = "no usage detected"


def validation_text(gpu: GpuStatus, *, wide: bool = False) -> str:
    """Return the VALIDATION cell; with `wide` it names every process."""
    if gpu.unknown_reason or gpu.reading is None:
        return (
            gpu.unknown_reason
            if gpu.state is GpuState.UNKNOWN
            else f"cannot tell: {gpu.unknown_reason}"
        )
    memory_mb = gpu.reading.held_memory_mb
    amount = "" if memory_mb is None else memory_text(memory_mb)
    if gpu.state is GpuState.RESERVED:
        return _with_notes(_reserved_use_text(gpu, amount), *_notes(gpu, wide=wide))
    return _with_notes(_use_text(gpu, amount, wide=wide), *_ignored_text(gpu.ignored, wide=wide))


def _reserved_use_text(gpu: GpuStatus, amount: str) -> str:
    if gpu.usage is not Usage.IN_USE:
        return NO_USAGE
    return ", ".join(filter(None, (amount, f"{len(gpu.processes)} processes")))


def _use_text(gpu: GpuStatus, amount: str, *, wide: bool) -> str:
    if gpu.usage is not Usage.IN_USE:
        return f"{amount} used" if amount else NO_USAGE
    processes = processes_text(gpu.processes, limit=None if wide else MAX_PROCESSES_SHOWN)
    return " ".join(filter(None, (amount, "used", f"by {processes}" if processes else "")))


def _notes(gpu: GpuStatus, *, wide: bool) -> tuple[str, ...]:
    nameless = sum(not owner_is_known(one) for one in gpu.processes)
    unknown = (f"{nameless} of unknown owner",) if nameless else ()
    below = tuple(map(_below_threshold_text, gpu.others.below_threshold)) if wide else ()
    return unknown + below + _ignored_text(gpu.ignored, wide=wide)


def _below_threshold_text(process: GpuProcess) -> str:
    """Return ``4MB of root below the threshold: PID 7 (Xorg)``."""
    amount = memory_text(process.memory_mb or 0)
    who, what = users_text((process,)), processes_text((process,))
    return f"{amount} of {who} below the threshold: {what}"


def _ignored_text(processes: tuple[GpuProcess, ...], *, wide: bool) -> tuple[str, ...]:
    """Return ``Xorg ignored``, ``Xorg and 2 more ignored``: each name once."""
    names = list(dict.fromkeys(one.name or f"PID {one.pid}" for one in processes))
    shown = names if wide else names[:MAX_PROCESSES_SHOWN]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return (f"{', '.join(shown)}{more} ignored",) if names else ()


def _with_notes(text: str, *notes: str) -> str:
    return f"{text} ({', '.join(notes)})" if notes else text
