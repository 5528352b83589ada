"""What a waiting job is woken by: the end of processes, or an event in the ledger."""

from __future__ import annotations

import time

from canhazgpu.conflict.policy import Cause
from canhazgpu.conflict.situation import Situation
from canhazgpu.node.alive import process_id
from canhazgpu.node.watch import ProcessWatch
from canhazgpu.prolog.way import Way

FREED_LATE_S = 0.3
"""NVML shows memory for a moment after its process has ended."""


class Changes:
    """Changes of what is in the way of one job; close it at the end."""

    def __init__(self, way: Way, situation: Situation) -> None:
        self._way = way
        self._by_event = Cause.RESERVED in situation.causes
        self._last = self._await("", 0.0) if self._by_event else ""
        found = (process_id(process.pid) for process in situation.processes)
        self._watch = ProcessWatch([one for one in found if one is not None])

    def wait(self, seconds: float) -> None:
        """Wait until an attempt may succeed, at most so long."""
        if self._by_event:
            self._last = self._await(self._last, seconds)
        elif self._watch.any_ended(seconds):
            time.sleep(min(seconds, FREED_LATE_S))

    def close(self) -> None:
        """Give back what was watched with."""
        self._watch.close()

    def _await(self, after: str, seconds: float) -> str:
        return self._way.ledger.await_change(self._way.hook.job.node, after, seconds)
