"""Get GPUs for a person: at once where they are free, else by waiting in the node's queue.

A waiter sleeps until the ledger reports an event of the node. Some changes cause no event: an
owner or a waiter dies, a process without a reservation ends. A waiter therefore also polls. Only
the first one in the queue scans the GPUs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from canhazgpu.allocation.allocator import GpuAllocator, Grant
from canhazgpu.allocation.progress import Progress
from canhazgpu.allocation.queue_position import (
    cannot_be_satisfied,
    fits_by_ledger,
    position_in_queue,
    waiting_text,
)
from canhazgpu.allocation.refusal import Refusal, RefusalKind
from canhazgpu.errors import StoreError
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.values import NodeView, Waiter

POLL_INTERVAL_S = 1.0
"""Longest time between two searches for dead owners and waiters: a death causes no event."""
FIRST_SCAN_DELAY_S = 1.0
MAX_SCAN_INTERVAL_S = 5.0
"""The first waiter scans again for unreserved use that has ended: after `FIRST_SCAN_DELAY_S`, then
after twice the time before, up to this."""
STORE_RETRY_PAUSE_S = 1.0

ReserveAttempt = Callable[[], Grant | Refusal]


@dataclass(frozen=True, slots=True)
class WaitOptions:
    """How long to wait.

    `wait_s` is 0 for not at all, None for without a limit. The waiter renews its entry in the queue
    every `heartbeat_s`.
    """

    wait_s: float | None = None
    heartbeat_s: float = 15.0


class QueueWait:
    """The wait of one person in the queue of one node."""

    def __init__(
        self,
        service: GpuAllocator,
        ledger: Ledger,
        node: str,
        attempt: ReserveAttempt,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the node's ports; `attempt` tries once to reserve the GPUs."""
        self._service = service
        self._ledger = ledger
        self._node = node
        self._attempt = attempt
        self._progress = progress
        self._clock = clock
        self._sleep = sleep

    def acquire(self, waiter: Callable[[], Waiter], options: WaitOptions) -> Grant | Refusal:
        """Return the grant, or the last refusal.

        The first attempt comes before the queue; `waiter` is called after it. A refusal is
        returned at once where waiting cannot change it, else when the time is over. Raises what
        the attempt raises; `StoreError` only before the wait begins. Without a grant the waiter is
        removed from the queue, also after an exception.
        """
        if options.wait_s == 0:
            return self._attempt()
        # An event during the first attempt must end the sleep too.
        after = self._ledger.wait_for_event(self._node, "", 0)
        outcome = self._attempt()
        if isinstance(outcome, Grant) or outcome.kind in (RefusalKind.NEVER, RefusalKind.FAULT):
            return outcome
        joined = waiter()
        ends = None if options.wait_s is None else self._clock() + options.wait_s
        granted = False
        try:
            outcome = self._wait_in_queue(joined, outcome, after, ends, options.heartbeat_s)
            granted = isinstance(outcome, Grant)
            return outcome
        finally:
            self._progress.done()
            if not granted:
                self._leave_queue(joined.owner)

    def _wait_in_queue(
        self, waiter: Waiter, refusal: Refusal, after: str, ends: float | None, heartbeat_s: float
    ) -> Grant | Refusal:
        state = _QueueWaitState(self._clock(), after)
        pause_s = min(POLL_INTERVAL_S, heartbeat_s)
        while ends is None or self._clock() < ends:
            try:
                outcome = self._check_queue_once(waiter, refusal, state, heartbeat_s)
                if isinstance(outcome, Grant) or outcome.kind is RefusalKind.NEVER:
                    return outcome
                refusal = outcome
                left_s = pause_s if ends is None else min(pause_s, ends - self._clock())
                state.after = self._ledger.wait_for_event(self._node, state.after, max(left_s, 0))
            except StoreError as exc:
                text = f"still waiting, without the ledger for now: {exc}"
                self._progress.show(text, text)
                self._sleep(STORE_RETRY_PAUSE_S)
        return refusal

    def _check_queue_once(
        self, waiter: Waiter, refusal: Refusal, state: _QueueWaitState, heartbeat_s: float
    ) -> Grant | Refusal:
        """Renew the entry in the queue, read its position, and try if it is the first."""
        view = self._service.reaped_view()
        position = position_in_queue(view, waiter.owner)
        if position is None or self._clock() >= state.renew_at:
            self._ledger.join_queue(self._node, waiter)
            state.renew_at = self._clock() + heartbeat_s
            view = self._service.reaped_view()
            position = position_in_queue(view, waiter.owner)
        if position == 1 and self._should_try(view, waiter, state):
            outcome = self._attempt()
            if isinstance(outcome, Grant):
                return outcome
            refusal = outcome
        text, steady = (
            waiting_text(view, waiter, position, refusal, times=times) for times in (True, False)
        )
        self._progress.show(text, steady)
        return refusal

    def _should_try(self, view: NodeView, waiter: Waiter, state: _QueueWaitState) -> bool:
        """Tell whether to scan: the ledger has changed, or the scan interval is over.

        By the ledger there must be enough GPUs, or never enough: the attempt then finds out
        whether that is so, and why.
        """
        if not (fits_by_ledger(view, waiter) or cannot_be_satisfied(view, waiter)):
            return False
        free = (frozenset(view.reservations), frozenset(view.quarantines))
        if free == state.tried_with and self._clock() < state.scan_at:
            return False
        state.scan_interval_s = (
            FIRST_SCAN_DELAY_S
            if free != state.tried_with
            else min(state.scan_interval_s * 2, MAX_SCAN_INTERVAL_S)
        )
        state.scan_at = self._clock() + state.scan_interval_s
        state.tried_with = free
        return True

    def _leave_queue(self, owner: str) -> None:
        try:
            self._ledger.leave_queue(self._node, [owner], "gave up")
        except StoreError:
            # Others remove the entry: they see that its process is dead, or its lease ends.
            return


@dataclass(slots=True)
class _QueueWaitState:
    """The state of one wait between two checks of the queue."""

    renew_at: float
    after: str
    tried_with: tuple[frozenset[str], frozenset[str]] | None = None
    scan_at: float = 0.0
    scan_interval_s: float = FIRST_SCAN_DELAY_S
