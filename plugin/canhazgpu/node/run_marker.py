"""The processes that belong to a run: those that carry its mark in their environment.

The mark survives double forks, new sessions and changes of parent, which pids and process groups do
not. A process that clears its environment leaves the run.

The mark is the run's owner, which everybody may know, and a word that only its processes do: root's
keeper sees the environment of everybody's processes, and must not take others' for its run's.
"""

from __future__ import annotations

import contextlib
import os

from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.processes import PROC, identify_process

MARKER_VARIABLE = "CANHAZGPU_OWNER"
"""The variable that holds the run's mark."""


def new_run_marker(owner: str) -> str:
    """Return a mark of the owner's run that nobody else can guess."""
    return f"{owner}:{os.urandom(8).hex()}"


def clear_own_marker() -> None:
    """Leave the run that this process was started in: it outlasts that run, and is no part of it.

    Only the memory that /proc/PID/environ shows counts (proc(5): field 50 of stat is its place).
    """
    with contextlib.suppress(OSError, IndexError, ValueError):
        own = PROC / "self"
        offset = (b"\0" + (own / "environ").read_bytes()).index(f"\0{MARKER_VARIABLE}=".encode())
        stat = (own / "stat").read_text("utf-8", "replace")
        start = int(stat.rpartition(")")[2].split()[47])
        with (own / "mem").open("r+b", buffering=0) as memory:
            memory.seek(start + offset)
            memory.write(b"_")


def processes_of_run(marker: str) -> tuple[ProcessId, ...]:
    """Return the live processes with the mark, of those this user may look at."""
    entry = f"{MARKER_VARIABLE}={marker}".encode()
    found = []
    for pid in _pids():
        try:
            environment = (PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        if entry in environment.split(b"\0") and (process := identify_process(pid)) is not None:
            found.append(process)
    return tuple(found)


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir(PROC) if name.isdecimal()]  # noqa: PTH208 - names
    except OSError:
        return []
