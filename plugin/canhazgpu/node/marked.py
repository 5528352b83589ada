"""The processes that belong to a run: those that carry its mark in their environment.

The mark survives double forks, new sessions and changes of parent, which pids and process groups do
not. A process that clears its environment leaves the run.
"""

from __future__ import annotations

import os

from canhazgpu.ledger.values import ProcessId
from canhazgpu.node.alive import PROC, process_id

MARK = "CANHAZGPU_OWNER"
"""The variable that holds the run's owner token."""


def marked_processes(owner: str) -> tuple[ProcessId, ...]:
    """Return the live processes with the owner's mark, of those this user may look at."""
    mark = f"{MARK}={owner}".encode()
    found = []
    for pid in _pids():
        try:
            environment = (PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        if mark in environment.split(b"\0") and (process := process_id(pid)) is not None:
            found.append(process)
    return tuple(found)


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir(PROC) if name.isdecimal()]  # noqa: PTH208 - names
    except OSError:
        return []
