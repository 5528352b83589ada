"""The identity of a process: its pid and start time, as a pid may be reused; pure."""

from __future__ import annotations

from canhazgpu.frozen_dataclass import dataclass


@dataclass(frozen=True, slots=True, order=True)
class ProcessId:
    """A process; `started` is field 22 of /proc/PID/stat (ticks since boot)."""

    pid: int
    started: int
