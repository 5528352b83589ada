"""When processes of this node started, in the kernel's clock ticks since boot and as a time."""

from __future__ import annotations

import os
import time

from canhazgpu.node.alive import stat_of


def boot_ticks() -> int | None:
    """Return the time since the node's boot as /proc counts it, None where it is not told."""
    try:
        return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError, ValueError):
        return None


def started_ticks(pid: int) -> int | None:
    """Return when the process started, in ticks since boot; None where that is not told."""
    stat = stat_of(pid)
    return None if stat is None else stat.started


def started_at(pid: int) -> float | None:
    """Return when the process started, in seconds since the epoch of this node's clock."""
    started, now = started_ticks(pid), boot_ticks()
    if started is None or now is None:
        return None
    return time.time() - (now - started) / os.sysconf("SC_CLK_TCK")
