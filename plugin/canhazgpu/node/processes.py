"""Processes of this node by pid and start time, so that a pid used again is not taken for the same.

Source of the fields: proc(5). Signalling is no test of life: a process that changed its user
answers EPERM. Nor is /proc: mounted with ``hidepid`` it shows a user no other's processes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from canhazgpu.node.process_id import ProcessId

PROC = Path("/proc")
_DEAD_STATES = frozenset("ZXx")
"""States of a process that holds no GPU any more: a zombie's resources are gone."""


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """What /proc/PID/stat says of a process."""

    state: str
    parent: int
    started: int
    threads: int = 1

    @property
    def is_dead(self) -> bool:
        """Tell whether it holds nothing more; one whose first thread alone has ended lives on."""
        return self.state in _DEAD_STATES and self.threads <= 1


def read_stat(pid: int) -> ProcessStat | None:
    """Return what the node tells of the process; None where it tells nothing."""
    try:
        text = (PROC / str(pid) / "stat").read_text("utf-8", "replace")
        # The name, in parentheses, may hold spaces and parentheses of its own.
        fields = text.rpartition(")")[2].split()
        return ProcessStat(fields[0], int(fields[1]), int(fields[19]), int(fields[17]))
    except (OSError, IndexError, ValueError):
        return None


def identify_process(pid: int) -> ProcessId | None:
    """Return the identity of a live process, None where it cannot be told."""
    stat = read_stat(pid)
    return None if stat is None or stat.is_dead else ProcessId(pid, stat.started)


def this_process() -> ProcessId:
    """Return the calling process's identity; without /proc its start counts as unknown (0)."""
    return identify_process(os.getpid()) or ProcessId(os.getpid(), 0)


def is_alive(process: ProcessId) -> bool:
    """Tell whether the process is there; where that cannot be told, it is."""
    stat = read_stat(process.pid)
    if stat is None:
        return _exists(process.pid)
    return not stat.is_dead and process.started in (stat.started, 0)


def is_stopped(process: ProcessId) -> bool:
    """Tell whether the process has been stopped (SIGSTOP, Ctrl-Z): it does nothing meanwhile."""
    stat = read_stat(process.pid)
    return stat is not None and stat.state == "T" and process.started in (stat.started, 0)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    # Ours, and yet not in /proc: between the two looks it either appeared or began to end.
    return True
