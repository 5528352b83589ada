"""Wait for the end of processes that are not children of this one."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Sequence

from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.processes import is_alive

POLL_INTERVAL_S = 0.05
"""Time between two polls where the kernel has no pidfds (Linux before 5.3)."""


class ProcessWatch:
    """Waits for processes to end, and signals them.

    It uses a pidfd for each process, and polls if there are none. A process that has ended before
    the watch began counts as ended.
    """

    def __init__(self, processes: Sequence[ProcessId]) -> None:
        self._processes = tuple(processes)
        self._descriptors: dict[ProcessId, int] = {}
        for process in processes:
            # The process has ended or may not be watched, or the kernel has no pidfds: then poll.
            with contextlib.suppress(OSError, AttributeError):
                self._descriptors[process] = os.pidfd_open(process.pid)
        # After opening: the pid may have been reused before, and the pidfd be another process's.
        self._exited = [process for process in processes if not is_alive(process)]

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What becomes readable when one of the processes ends; empty where one has to poll."""
        if len(self._descriptors) < len(self._processes):
            return ()
        return tuple(self._descriptors.values())

    def close(self) -> None:
        """Close the descriptors."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def wait_for_exit(self, wait_s: float) -> bool:
        """Wait at most `wait_s` for one of the processes to end; return whether one has."""
        if self._exited:
            return True
        if len(self._descriptors) < len(self._processes):
            return self._poll_until(time.monotonic() + wait_s)
        poll = select.poll()
        for descriptor in self._descriptors.values():
            poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(max(wait_s, 0) * 1000))

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the processes that are alive; ignore those that may not be signalled."""
        for process in self._processes:
            if process in self._exited:
                continue
            with contextlib.suppress(OSError):
                if process in self._descriptors:
                    signal.pidfd_send_signal(self._descriptors[process], number)
                elif is_alive(process):
                    os.kill(process.pid, number)

    def _poll_until(self, deadline: float) -> bool:
        while all(map(is_alive, self._processes)):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(POLL_INTERVAL_S, left_s))
        return True
