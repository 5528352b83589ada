"""Which process: a pid and when it started, so that a pid used again is not taken for it; pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class ProcessId:
    """A process, whatever happens to its pid: `started` is field 22 of /proc/PID/stat (ticks)."""

    pid: int
    started: int
