"""Read users and names of processes by ps, where there is no /proc."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

PS = "/bin/ps"
PS_TIMEOUT_S = 2.0


def owners_by_ps(pids: Iterable[int]) -> dict[int, tuple[int, str]]:
    """Return uid and name of those processes that ps knows; ps runs once for all."""
    listed = ",".join(str(pid) for pid in pids if pid > 0)
    if not listed:
        return {}
    try:
        done = subprocess.run(
            [PS, "-o", "pid=,uid=,comm=", "-p", listed],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PS_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    rows = (line.split(None, 2) for line in done.stdout.decode("utf-8", "replace").split("\n"))
    return {
        int(row[0]): (int(row[1]), row[2].strip())
        for row in rows
        if len(row) == 3 and row[0].isdecimal() and row[1].isdecimal()
    }
