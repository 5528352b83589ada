"""The clock that counts from the node's boot, and when processes started by it."""

from __future__ import annotations

import os
import time

from canhazgpu.node.processes import read_stat


def uptime_s() -> float:
    """Return the seconds since this boot: one clock for all of the node's processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def ticks_since_boot() -> int | None:
    """Return the time since the node's boot as /proc counts it, None where it is not told."""
    try:
        return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError, ValueError):
        return None


def process_start_ticks(pid: int) -> int | None:
    """Return when the process started, in ticks since boot; None where that is not told."""
    stat = read_stat(pid)
    return None if stat is None else stat.started


def process_start_time(pid: int) -> float | None:
    """Return when the process started, in seconds since the epoch of this node's clock."""
    started, now = process_start_ticks(pid), ticks_since_boot()
    if started is None or now is None:
        return None
    return time.time() - (now - started) / os.sysconf("SC_CLK_TCK")
