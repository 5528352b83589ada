"""Children that nothing else waits for: helpers that were told to end."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

LOOK_INTERVAL_S = 0.005


class Leftovers:
    """The children, by pid."""

    def __init__(self, pids: Iterable[int] = ()) -> None:
        self._pids = set(pids)

    def add(self, pids: Iterable[int]) -> None:
        """Take more."""
        self._pids.update(pids)

    def reap(self) -> None:
        """Take note of those that have ended."""
        for pid in list(self._pids):
            found = pid
            with contextlib.suppress(ChildProcessError):
                found, _ = os.waitpid(pid, os.WNOHANG)
            if found:
                self._pids.discard(pid)

    def wait(self, longest_s: float) -> None:
        """Wait for the end of all, for so long."""
        ends_at = time.monotonic() + longest_s
        self.reap()
        while self._pids and time.monotonic() < ends_at:
            time.sleep(LOOK_INTERVAL_S)
            self.reap()


def own_children() -> list[int]:
    """Return the pids of this process's children, none where the kernel does not tell."""
    pid = os.getpid()
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
