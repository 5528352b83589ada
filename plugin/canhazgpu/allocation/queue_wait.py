"""Get GPUs for a person: at once where they are free, else by waiting in the node's queue.

A waiter sleeps until the ledger reports an event of the node. Some changes cause no event: an
owner or a waiter dies, a process without a reservation starts or ends. A waiter therefore also
polls. What it does each time: queue_check.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NoReturn

from canhazgpu.allocation.allocator import GpuAllocator, Grant
from canhazgpu.allocation.progress import Progress
from canhazgpu.allocation.queue_check import (
    LedgerQueuePositions,
    QueueCheck,
    QueuedWait,
    StillWaiting,
    WaitedRequest,
)
from canhazgpu.allocation.queue_decision import WaitState
from canhazgpu.allocation.refusal import Refusal, RefusalKind
from canhazgpu.errors import StoreError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.values import Waiter

POLL_INTERVAL_S = 1.0
"""Longest time between two searches for dead owners and waiters: a death causes no event."""
STORE_RETRY_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class WaitOptions:
    """How long to wait.

    `wait_s` is 0 for not at all, infinite for without a limit, and None for as long as reservations
    are in the way and nothing else. The waiter renews its entry in the queue every `heartbeat_s`.
    """

    wait_s: float | None = None
    heartbeat_s: float = 15.0

    @property
    def gives_up(self) -> bool:
        """Whether to give up when no release of a reservation can help."""
        return self.wait_s is None


class QueueWait:
    """The wait of one person in the queue of one node."""

    def __init__(
        self,
        service: GpuAllocator,
        ledger: Ledger,
        request: WaitedRequest,
        progress: Progress,
        hand_over: Callable[[Waiter, Refusal], NoReturn] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the node's ports, and the request of this one person.

        `hand_over` has it wait elsewhere, and raises what ends this process's part.
        """
        self._hand_over = hand_over
        self._service = service
        self._ledger = ledger
        self._node = service.node
        self._request = request
        self._progress = progress
        self._clock = clock
        self._sleep = sleep

    def acquire(self, options: WaitOptions) -> Grant | Refusal:
        """Return the grant, or the last refusal.

        The first attempt comes before the queue. A refusal is returned at once where waiting
        cannot change it, else when the time is over. Raises what the attempt raises; `StoreError`
        only before the wait begins. Without a grant the waiter is removed from the queue, also
        after an exception.
        """
        if options.wait_s == 0:
            return self._request.reserve()
        # An event during the first attempt must end the sleep too.
        after = "" if self._hand_over else self._ledger.wait_for_event(self._node, "", 0)
        outcome = self._request.reserve()
        if isinstance(outcome, Grant) or outcome.kind in (RefusalKind.NEVER, RefusalKind.FAULT):
            return outcome
        joined = self._request.waiter()
        if options.gives_up and (refusal := self._obstruction(joined, outcome)):
            return refusal
        if self._hand_over is not None:
            self._hand_over(joined, outcome)
        granted = False
        try:
            outcome = self._wait_in_queue(joined, outcome, after, options)
            granted = isinstance(outcome, Grant)
            return outcome
        finally:
            self._progress.done()
            if not granted:
                self._leave_queue(joined.owner)

    def _obstruction(self, waiter: Waiter, refusal: Refusal) -> Refusal | None:
        """Return the refusal where no release can help, by the scan of the first attempt."""
        seen = self._request.feasibility(self._service.reaped_view(), waiter)
        if seen is not None and seen.is_obstructed:
            return seen.refusal
        return refusal if refusal.kind is RefusalKind.OBSTRUCTED else None

    def _wait_in_queue(
        self, waiter: Waiter, refusal: Refusal, after: str, options: WaitOptions
    ) -> Grant | Refusal:
        now = self._clock()
        state = WaitState.at_start(now, gives_up=options.gives_up)
        wait = QueuedWait(self._request, waiter, refusal, state)
        ends = now + (math.inf if options.wait_s is None else options.wait_s)
        pause_s = min(POLL_INTERVAL_S, options.heartbeat_s)
        while self._clock() < ends:
            try:
                outcome = self._check_queue_once(wait, options.heartbeat_s)
                if not isinstance(outcome, StillWaiting):
                    return outcome
                self._progress.show(outcome.text, outcome.steady)
                left_s = min(pause_s, ends - self._clock())
                after = self._ledger.wait_for_event(self._node, after, max(left_s, 0))
            except StoreError as exc:
                text = without_ledger_text(str(exc))
                self._progress.show(text, text)
                self._sleep(STORE_RETRY_PAUSE_S)
        return wait.refusal

    def _check_queue_once(
        self, wait: QueuedWait, heartbeat_s: float
    ) -> Grant | Refusal | StillWaiting:
        positions = LedgerQueuePositions(self._ledger, self._node)
        check = QueueCheck(self._service, positions, heartbeat_s, self._clock)
        return check.check([wait])[wait.owner]

    def _leave_queue(self, owner: str) -> None:
        try:
            self._ledger.leave_queue(self._node, [owner], "gave up")
        except StoreError:
            # Others remove the entry: they see that its process is dead, or its lease ends.
            return


def without_ledger_text(reason: str) -> str:
    """Return what is shown to a waiter while the ledger cannot be asked."""
    return f"still waiting, without the ledger for now: {reason}"
