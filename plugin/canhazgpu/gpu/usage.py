"""Is a GPU in use by its reading, by whom, and in which state is it; pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuProcess, GpuReading, known_memory_mb

MAX_PID = 4194304
"""The kernel's PID_MAX_LIMIT; drivers 535.43 to 535.85 report pids beyond it."""


class Usage(Enum):
    """The use of a GPU by its reading alone, without the ledger."""

    FREE = "free"
    IN_USE = "in use"
    UNKNOWN = "unknown"


class GpuState(Enum):
    """The state of a GPU by reading and ledger together; the values are those of the JSON."""

    AVAILABLE = "available"
    RESERVED = "reserved"
    UNRESERVED = "unreserved"
    QUARANTINED = "quarantined"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class UsagePolicy:
    """When a GPU counts as in use.

    Ignored processes, and the memory that they hold, do not count: display servers, monitoring.
    They are named by process (``Xorg``), by user and process (``root:Xorg``) or by user. Any
    process can give itself the name of another, but not the user.
    """

    memory_threshold_mb: int
    ignore_processes: frozenset[str] = frozenset()
    ignore_users: frozenset[str] = frozenset()

    def ignores(self, process: GpuProcess) -> bool:
        """Tell whether the process does not count as use."""
        name, user = process.name, process.user
        if user is not None and user in self.ignore_users:
            return True
        if name is None:
            return False
        # A process may name itself "root:Xorg": a name with a colon is never compared alone.
        names = set() if ":" in name else {name}
        if user is not None:
            names.add(f"{user}:{name}")
        return not names.isdisjoint(self.ignore_processes)

    def is_use(self, processes: Iterable[GpuProcess]) -> bool:
        """Tell whether the processes together use a GPU; unknown memory is use."""
        given = tuple(processes)
        unknown = any(one.memory_mb is None for one in given)
        return unknown or known_memory_mb(given) > self.memory_threshold_mb

    def counted_processes(self, processes: tuple[GpuProcess, ...]) -> tuple[GpuProcess, ...]:
        """Return the processes that count, in their order."""
        return tuple(one for one in processes if not self.ignores(one))


ANY_MEMORY_IS_USE = UsagePolicy(0)


def judge_usage(reading: GpuReading, policy: UsagePolicy) -> Usage:
    """Judge one GPU: it is in use above the threshold, or with a process of unknown memory.

    Where the processes hold more than the GPU's own sum says, or the GPU has no memory of its own
    (unified memory), the sum of the processes that count is judged. A GPU with impossible values is
    unknown.
    """
    if reading.fault is not None or not reading.uuid or _has_impossible_values(reading):
        return Usage.UNKNOWN
    if not reading.processes:
        used = reading.memory_used_mb or 0
        return Usage.IN_USE if used > policy.memory_threshold_mb else Usage.FREE
    counting = policy.counted_processes(reading.processes)
    if policy.is_use(counting):
        return Usage.IN_USE
    ignored_mb = known_memory_mb(one for one in reading.processes if policy.ignores(one))
    used_mb = (reading.memory_used_mb or 0) - ignored_mb
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
    """Return the state of a GPU by its reading and the ledger.

    A reservation shows even where the GPU cannot be read, because the ledger knows it.
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
    """Return ``8452MB``, or ``8GB`` for whole gigabytes from 4 on.

    Smaller amounts stay in MB, ``1024MB``, because the memory threshold is set in MB.
    """
    gigabytes, rest = divmod(memory_mb, 1024)
    return f"{memory_mb}MB" if rest or memory_mb < MIN_GB_TEXT_MB else f"{gigabytes}GB"


def users_text(processes: tuple[GpuProcess, ...]) -> str:
    """Return the users as ``alice,bob``, each once; "unknown" for one without a name."""
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
