"""End processes of this node: SIGTERM, some time, SIGKILL.

A pid that a scan found may be another process's by now. So processes are first held, then looked at
once more, and only then signalled: what was held before the second look and lives after it is what
the second look saw.
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
"""How long a process killed with SIGKILL is waited for: one in the kernel's hands stays longer."""


class ProcessTerminator:
    """Processes held for ending, by a descriptor where the kernel has them; a context manager."""

    def __init__(self, pids: Iterable[int]) -> None:
        found = (identify_process(pid) for pid in sorted(set(pids)))
        self._held: dict[ProcessId, ProcessWatch] = {
            process: ProcessWatch([process]) for process in found if process is not None
        }

    def __enter__(self) -> Self:
        return self

    def __contains__(self, pid: object) -> bool:
        """Tell whether the process is held."""
        return any(process.pid == pid for process in self._held)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for watch in self._held.values():
            watch.close()

    def terminate(self, pids: Collection[int], grace_s: float) -> tuple[int, ...]:
        """End those of the held processes that have these pids; returns the pids that still live.

        `pids` are to come from a look that began after the processes were held.
        """
        chosen = {process: watch for process, watch in self._held.items() if process.pid in pids}
        for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, SIGKILL_WAIT_S)):
            alive = [watch for process, watch in chosen.items() if is_alive(process)]
            for watch in alive:
                watch.send_signal(number)
            deadline = time.monotonic() + wait_s
            for watch in alive:
                watch.wait_for_exit(deadline - time.monotonic())
        return tuple(process.pid for process in chosen if is_alive(process))
