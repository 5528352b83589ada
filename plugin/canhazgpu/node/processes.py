"""Identify processes of this node by pid and start time, and check whether they are alive.

Fields are those of proc(5). A signal alone does not show whether a process is alive: it fails with
EPERM if the process changed its user. Nor does /proc alone: with ``hidepid`` a user does not see
the processes of others.
"""

from __future__ import annotations

import os
from pathlib import Path

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.node.process_id import ProcessId

PROC = Path("/proc")
_DEAD_STATES = frozenset("ZXx")
"""States of a process that has released its resources, GPUs included: zombie and dead."""


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """Fields of /proc/PID/stat."""

    state: str
    parent: int
    started: int
    threads: int = 1

    @property
    def is_dead(self) -> bool:
        """Whether the process has ended; it has not if only its first thread has."""
        return self.state in _DEAD_STATES and self.threads <= 1


def read_quickly(path: str) -> bytes:
    """Return a file's content, in a fifth of the time of a `Path`: /proc has thousands of them."""
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - see above
        return stream.read()


def read_stat(pid: int) -> ProcessStat | None:
    """Return the fields of the process, None if they cannot be read."""
    try:
        text = read_quickly(f"{PROC}/{pid}/stat").decode("utf-8", "replace")
        # The name is in parentheses; it may contain spaces and parentheses.
        fields = text.rpartition(")")[2].split()
        return ProcessStat(fields[0], int(fields[1]), int(fields[19]), int(fields[17]))
    except (OSError, IndexError, ValueError):
        return None


def identify_process(pid: int) -> ProcessId | None:
    """Return the identity of a live process, None if it cannot be read."""
    stat = read_stat(pid)
    return None if stat is None or stat.is_dead else ProcessId(pid, stat.started)


def this_process() -> ProcessId:
    """Return the identity of the calling process; without /proc its start is unknown (0)."""
    return identify_process(os.getpid()) or ProcessId(os.getpid(), 0)


def is_alive(process: ProcessId) -> bool:
    """Return whether the process is alive; true if that cannot be determined."""
    stat = read_stat(process.pid)
    if stat is None:
        return _exists(process.pid)
    return not stat.is_dead and process.started in (stat.started, 0)


def is_stopped(process: ProcessId) -> bool:
    """Return whether the process is stopped (SIGSTOP, Ctrl-Z)."""
    stat = read_stat(process.pid)
    return stat is not None and stat.state == "T" and process.started in (stat.started, 0)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    # It may be signalled, so /proc would show it: it started or ended between the two checks.
    return True
