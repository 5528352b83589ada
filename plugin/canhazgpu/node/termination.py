"""Terminate processes of this node: SIGTERM, a grace period, SIGKILL.

A pid from a scan may have been reused since. So the processes are identified first, then scanned
again, and only then signalled. A process that was identified before the second scan and is alive
after it is the one that the second scan saw.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Collection, Iterable
from types import TracebackType
from typing import Self

from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.process_watch import ProcessWatch
from canhazgpu.node.processes import identify_process, is_alive

SIGKILL_WAIT_S = 2.0
"""Time to wait after SIGKILL; a process in uninterruptible sleep may take longer."""


class ProcessTerminator:
    """Processes that may be terminated, identified by pidfd if possible; a context manager."""

    def __init__(self, pids: Iterable[int]) -> None:
        found = (identify_process(pid) for pid in sorted(set(pids)))
        self._watches: dict[ProcessId, ProcessWatch] = {
            process: ProcessWatch([process]) for process in found if process is not None
        }

    def __enter__(self) -> Self:
        return self

    def __contains__(self, pid: object) -> bool:
        """Return whether a process with this pid was identified."""
        return any(process.pid == pid for process in self._watches)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for watch in self._watches.values():
            watch.close()

    def terminate(self, pids: Collection[int], grace_s: float) -> tuple[int, ...]:
        """Terminate the identified processes with these pids; return the pids still alive.

        `pids` must come from a scan that began after the processes were identified.
        """
        chosen = {process: watch for process, watch in self._watches.items() if process.pid in pids}
        for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, SIGKILL_WAIT_S)):
            alive = [watch for process, watch in chosen.items() if is_alive(process)]
            for watch in alive:
                watch.send_signal(number)
            deadline = time.monotonic() + wait_s
            for watch in alive:
                watch.wait_for_exit(deadline - time.monotonic())
        return tuple(process.pid for process in chosen if is_alive(process))
