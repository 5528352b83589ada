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
from collections.abc import Collection

from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.processes import PROC, identify_process, read_quickly

MARKER_VARIABLE = "CANHAZGPU_OWNER"
"""The environment variable with the run's marker."""
_ASSIGNMENT = f"{MARKER_VARIABLE}=".encode()


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
    return processes_of_runs([marker])[marker]


def processes_of_runs(
    markers: Collection[str], uid: int | None = None
) -> dict[str, tuple[ProcessId, ...]]:
    """Return the live processes with each marker, of those whose environment may be read.

    With a `uid`, only processes of that user count, and nobody else's are looked into: a process
    can make the reading of its environment take for ever.
    """
    entries = {f"{MARKER_VARIABLE}={marker}".encode(): marker for marker in markers}
    found: dict[str, list[ProcessId]] = {marker: [] for marker in markers}
    for pid in _pids():
        if uid is not None and not _is_of_user(pid, uid):
            continue
        try:
            environment = read_quickly(f"{PROC}/{pid}/environ")
        except OSError:
            continue
        if _ASSIGNMENT not in environment:
            continue  # nearly all processes, and to split it takes ten times as long
        for one in entries.keys() & environment.split(b"\0"):
            if (process := identify_process(pid)) is not None:
                found[entries[one]].append(process)
    return {marker: tuple(some) for marker, some in found.items()}


def _is_of_user(pid: int, uid: int) -> bool:
    """Tell whether the user started the process, a program that has another user's rights too."""
    try:
        owner = (PROC / str(pid)).stat().st_uid
        if owner != 0 or uid == 0:
            return owner == uid
        # Root's, or one that nobody may look into: its real user is in its status.
        status = (PROC / str(pid) / "status").read_bytes()
        return status.partition(b"\nUid:")[2].split(None, 1)[0] == str(uid).encode()
    except (OSError, IndexError):
        return False


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir(PROC) if name.isdecimal()]  # noqa: PTH208 - names
    except OSError:
        return []
