"""The positions of those who wait in a queue that the node itself keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.local.queue.queued_request import QueuedRequest
from canhazgpu.ledger.values import Waiter


class NodeQueuePositions:
    """`QueuePositions` of the node's own queue; `ends` has by owner when it gives up (uptime)."""

    def __init__(self, ledger: FallbackLedger, ends: Mapping[str, float | None]) -> None:
        self._ledger = ledger
        self._ends = ends

    def join(self, waiter: Waiter) -> None:
        """See `QueuePositions`."""
        entry = QueuedRequest(waiter, ends_at_uptime_s=self._ends[waiter.owner])
        self._ledger.wait_in_queue(entry)

    def renew(self, waiters: Sequence[Waiter]) -> None:
        """See `QueuePositions`; one heartbeat is for all who wait on the node."""
        self._ledger.renew_queue()

    def move_to_end(self, waiter: Waiter) -> None:
        """See `QueuePositions`."""
        self._ledger.move_to_end(waiter.owner)
