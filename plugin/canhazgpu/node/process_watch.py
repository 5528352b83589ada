"""Wait for the end of processes that are no children of this one."""

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
"""Between two looks where the kernel has no pidfds (Linux before 5.3)."""


class ProcessWatch:
    """Watches processes; one that ended before is noticed at once.

    With a descriptor for each process the wait ends with the process; where there are none,
    looking again and again has to do.
    """

    def __init__(self, processes: Sequence[ProcessId]) -> None:
        self._processes = tuple(processes)
        self._descriptors: dict[ProcessId, int] = {}
        for process in processes:
            # Gone, not ours to watch, or a kernel without: looked at instead.
            with contextlib.suppress(OSError, AttributeError):
                self._descriptors[process] = os.pidfd_open(process.pid)
        # A pid used again before it was opened is another process's.
        self._exited = [process for process in processes if not is_alive(process)]

    def close(self) -> None:
        """Give the descriptors back."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def wait_for_exit(self, wait_s: float) -> bool:
        """Wait until one of the processes has ended, at most so long; tells whether one has."""
        if self._exited:
            return True
        if len(self._descriptors) < len(self._processes):
            return self._poll_until(time.monotonic() + wait_s)
        poll = select.poll()
        for descriptor in self._descriptors.values():
            poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(max(wait_s, 0) * 1000))

    def send_signal(self, number: signal.Signals) -> None:
        """Signal those that live; one that may not be signalled is left alone."""
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
