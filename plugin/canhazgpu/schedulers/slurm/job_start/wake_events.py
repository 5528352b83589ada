"""The events that wake a waiting job: the end of processes, or an event of the ledger."""

from __future__ import annotations

import time

from canhazgpu.conflict.obstacles import JobConflict
from canhazgpu.conflict.policy import ConflictCause
from canhazgpu.node.process_watch import ProcessWatch
from canhazgpu.node.processes import identify_process
from canhazgpu.schedulers.slurm.job_start.allocation import JobAllocation

NVML_UPDATE_DELAY_S = 0.3
"""NVML shows memory for a moment after its process has ended."""


class WakeEvents:
    """Waits for a change of one job's obstacles. Close it after use."""

    def __init__(self, allocation: JobAllocation, conflict: JobConflict) -> None:
        self._allocation = allocation
        self._waits_for_ledger = ConflictCause.RESERVED in conflict.causes
        self._last_event_id = self._await_ledger_event("", 0.0) if self._waits_for_ledger else ""
        found = (identify_process(process.pid) for process in conflict.processes)
        self._watch = ProcessWatch([one for one in found if one is not None])

    def wait(self, seconds: float) -> None:
        """Wait for an event, at most `seconds`."""
        if self._waits_for_ledger:
            self._last_event_id = self._await_ledger_event(self._last_event_id, seconds)
        elif self._watch.wait_for_exit(seconds):
            time.sleep(min(seconds, NVML_UPDATE_DELAY_S))

    def close(self) -> None:
        """Close the watch on processes."""
        self._watch.close()

    def _await_ledger_event(self, after: str, seconds: float) -> str:
        return self._allocation.ledger.wait_for_event(
            self._allocation.hook.job.node, after, seconds
        )
