"""Pure judgement of a reading: is this GPU in use, by whom, and what do people call its state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from canhazgpu.gpu.scan import GpuProcess, GpuReading

MAX_PID = 4194304
"""The kernel's PID_MAX_LIMIT; drivers 535.43 to 535.85 report pids beyond it."""


class Usage(Enum):
    """What a reading says of a GPU, whatever the ledger says."""

    FREE = "free"
    IN_USE = "in use"
    UNKNOWN = "unknown"


class GpuState(Enum):
    """The one state of a GPU, reading and ledger taken together; the values are the JSON's."""

    AVAILABLE = "available"
    RESERVED = "reserved"
    UNRESERVED = "unreserved"
    QUARANTINED = "quarantined"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class UsagePolicy:
    """When a GPU counts as in use.

    Processes of these names (``Xorg``, or ``root:Xorg`` for one user's alone), and of these users,
    do not count, nor does the memory they hold: display servers, monitoring. A name alone can be
    taken by anybody's process; a user's name before it cannot be.
    """

    memory_threshold_mb: int
    ignore_processes: frozenset[str] = frozenset()
    ignore_users: frozenset[str] = frozenset()

    def ignores(self, process: GpuProcess) -> bool:
        """Tell whether the process does not count."""
        name, user = process.name, process.user
        if user is not None and user in self.ignore_users:
            return True
        if name is None:
            return False
        # A process may call itself "root:Xorg": only a name without a colon stands for itself.
        names = set() if ":" in name else {name}
        if user is not None:
            names.add(f"{user}:{name}")
        return not names.isdisjoint(self.ignore_processes)

    def counted_processes(self, processes: tuple[GpuProcess, ...]) -> tuple[GpuProcess, ...]:
        """Return the processes that count, in their order."""
        return tuple(one for one in processes if not self.ignores(one))


def judge_usage(reading: GpuReading, policy: UsagePolicy) -> Usage:
    """Judge one GPU: in use strictly above the threshold, or by a process of unknown memory.

    A GPU that reports no memory (unified memory) is in use as soon as it has a process that
    counts. One that reports what cannot be is unknown.
    """
    if reading.fault is not None or not reading.uuid or _has_impossible_values(reading):
        return Usage.UNKNOWN
    counting = policy.counted_processes(reading.processes)
    if any(process.memory_mb is None for process in counting):
        return Usage.IN_USE
    if reading.memory_used_mb is None:
        return Usage.IN_USE if counting else Usage.FREE
    ignored_mb = sum(one.memory_mb or 0 for one in reading.processes if policy.ignores(one))
    used_mb = reading.memory_used_mb - ignored_mb
    return Usage.IN_USE if used_mb > policy.memory_threshold_mb else Usage.FREE


def _has_impossible_values(reading: GpuReading) -> bool:
    used, total = reading.memory_used_mb, reading.memory_total_mb
    if used is not None and (used < 0 or (total is not None and used > total)):
        return True
    return any(
        not 0 < process.pid <= MAX_PID or (process.memory_mb is not None and process.memory_mb < 0)
        for process in reading.processes
    )


def gpu_state(usage: Usage, *, reserved: bool, quarantined: bool) -> GpuState:
    """Combine what the reading and the ledger say of a GPU into its one state.

    A reservation is known from the ledger even when the GPU cannot be read, so it shows.
    """
    if reserved:
        return GpuState.RESERVED
    if quarantined:
        return GpuState.QUARANTINED
    if usage is Usage.UNKNOWN:
        return GpuState.UNKNOWN
    return GpuState.UNRESERVED if usage is Usage.IN_USE else GpuState.AVAILABLE


MIN_GB_TEXT_MB = 4096


def memory_text(memory_mb: int) -> str:
    """Return ``8452MB``, and whole gigabytes as such from 4 on: ``8GB``.

    People know the sizes from there on as so many GB; below, as the threshold, they are set and
    compared in MB: ``1024MB``, ``2048MB``.
    """
    gigabytes, rest = divmod(memory_mb, 1024)
    return f"{memory_mb}MB" if rest or memory_mb < MIN_GB_TEXT_MB else f"{gigabytes}GB"


def users_text(processes: tuple[GpuProcess, ...]) -> str:
    """Return the users as ``alice,bob``, each once, in order; "unknown" for one without a name."""
    return ",".join(dict.fromkeys(process.user or "unknown" for process in processes)) or "unknown"


MAX_PROCESSES_SHOWN = 2


def processes_text(
    processes: tuple[GpuProcess, ...], *, limit: int | None = MAX_PROCESSES_SHOWN
) -> str:
    """Return ``PID 12345 (python3), PID 23456 (pytorch) and 2 more``; empty without processes."""
    shown = processes if limit is None else processes[:limit]
    text = ", ".join(f"PID {one.pid} ({one.name or 'unknown process'})" for one in shown)
    rest = len(processes) - len(shown)
    return f"{text} and {rest} more" if rest else text
