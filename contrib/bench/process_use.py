"""What processes use: CPU time and memory, by /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def tree_cpu_s(pid: int) -> float:
    """Return the CPU time of a process, its children that were reaped, and those that were not.

    What threads used that have ended is missing.
    """
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        own_ns = sum(int((one / "schedstat").read_text().split()[0]) for one in threads)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = _children(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    reaped_s = sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")
    return own_ns / 1e9 + reaped_s + sum(map(tree_cpu_s, children))


def descendants(pid: int) -> Iterator[int]:
    """Yield the process and all that descend from it."""
    yield pid
    try:
        children = _children(pid)
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        yield from descendants(child)


def kept_pss_kb(pid: int) -> int:
    """Return the process's proportional share of memory in KiB, 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
