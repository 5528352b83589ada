"""The clock that counts from the node's boot, and the start times of processes on it."""

from __future__ import annotations

import os
import time

from canhazgpu.node.processes import read_stat


def uptime_s() -> float:
    """Return the seconds since the node's boot, the same for all of its processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def ticks_since_boot() -> int | None:
    """Return the time since boot in clock ticks, the unit of /proc; None if it is not known."""
    try:
        return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError, ValueError):
        return None


def age_of_ticks_s(ticks: int) -> float | None:
    """Return how long ago that number of ticks since boot was; None if it is not known."""
    now = ticks_since_boot()
    return None if now is None else (now - ticks) / os.sysconf("SC_CLK_TCK")


def process_start_ticks(pid: int) -> int | None:
    """Return when the process started, in ticks since boot; None if it is not known."""
    stat = read_stat(pid)
    return None if stat is None else stat.started


def process_start_time(pid: int) -> float | None:
    """Return when the process started, in seconds since the epoch by this node's clock."""
    started = process_start_ticks(pid)
    age_s = None if started is None else age_of_ticks_s(started)
    return None if age_s is None else time.time() - age_s
