"""Find the processes of a run: a variable in their environment marks them.

The marker survives double forks, new sessions and changes of parent; pids and process groups do
not. A process that clears its environment leaves the run.

The marker is the run's owner token and a random word. Everybody may know the token, but only the
run's processes know the word. Root's run monitor sees the environments of all users' processes, and
must not count a process of another user as its run's.
"""

from __future__ import annotations

import contextlib
import os

from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.processes import PROC, identify_process

MARKER_VARIABLE = "CANHAZGPU_OWNER"
"""The environment variable with the run's marker."""


def new_run_marker(owner: str) -> str:
    """Return a marker for a run of the owner that nobody can guess."""
    return f"{owner}:{os.urandom(8).hex()}"


def clear_own_marker() -> None:
    """Leave the run in which this process was started: it outlasts the run.

    Overwrites the memory that /proc/PID/environ shows; field 50 of stat is its address (proc(5)).
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
    """Return the live processes with the marker, of those whose environment may be read."""
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
