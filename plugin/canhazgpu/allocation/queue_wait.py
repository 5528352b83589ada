"""Get GPUs for a person: at once where they are free, else by waiting in the node's queue.

A waiter sleeps until the ledger reports an event of the node. Some changes cause no event: an
owner or a waiter dies, a process without a reservation starts or ends. A waiter therefore also
polls. Only the first one in the queue scans the GPUs; the others read its scans.

A waiter is obstructed where even the end of every reservation would not be enough, because of use
without reservation, quarantines or unreadable GPUs. It gives up then, unless it was told how long
to wait; and it lets others pass who could be served.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from canhazgpu.allocation.allocator import GpuAllocator, Grant
from canhazgpu.allocation.progress import Progress
from canhazgpu.allocation.prospects import Prospects
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
REFRESH_INTERVAL_S = 10.0
"""While reservations are in the way, the first waiter scans so rarely for others' use."""
CONFIRM_AFTER_S = 2.0
"""A waiter gives up when two scans of its own, so long apart, find it obstructed: what an owner
leaves behind ends within moments."""
STORE_RETRY_PAUSE_S = 1.0


class WaitedRequest(Protocol):
    """The request that somebody waits for."""

    def reserve(self) -> Grant | Refusal:
        """Try once to reserve the GPUs."""
        ...

    def waiter(self) -> Waiter:
        """Return the entry for the queue, after the first attempt was refused."""
        ...

    def prospects(self, view: NodeView, waiter: Waiter) -> Prospects | None:
        """Return what a waiter could get by the view's scan, None where that has none."""
        ...


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
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the node's ports, and the request of this one person."""
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
        after = self._ledger.wait_for_event(self._node, "", 0)
        outcome = self._request.reserve()
        if isinstance(outcome, Grant) or outcome.kind in (RefusalKind.NEVER, RefusalKind.FAULT):
            return outcome
        joined = self._request.waiter()
        if options.gives_up and (refusal := self._obstruction(joined, outcome)):
            return refusal
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
        seen = self._request.prospects(self._service.reaped_view(), waiter)
        if seen is not None and seen.is_obstructed:
            return seen.refusal
        return refusal if refusal.kind is RefusalKind.OBSTRUCTED else None

    def _wait_in_queue(
        self, waiter: Waiter, refusal: Refusal, after: str, options: WaitOptions
    ) -> Grant | Refusal:
        now = self._clock()
        state = _QueueWaitState(now, after, options.gives_up, now + REFRESH_INTERVAL_S)
        ends = self._clock() + (math.inf if options.wait_s is None else options.wait_s)
        pause_s = min(POLL_INTERVAL_S, options.heartbeat_s)
        while self._clock() < ends:
            try:
                outcome = self._check_queue_once(waiter, refusal, state, options.heartbeat_s)
                if isinstance(outcome, Grant) or outcome.kind is RefusalKind.NEVER:
                    return outcome
                if options.gives_up and outcome.kind is RefusalKind.OBSTRUCTED:
                    return outcome
                refusal = outcome
                left_s = min(pause_s, ends - self._clock())
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
        if position == 1:
            if self._should_try(view, waiter, state):
                outcome = self._request.reserve()
                if isinstance(outcome, Grant):
                    return outcome
                refusal = outcome
                view = self._service.reaped_view()
            elif self._clock() >= state.refresh_at:
                view = self._refresh(state)
        seen = self._request.prospects(view, waiter)
        if state.gives_up and (given_up := self._confirmed_obstruction(waiter, seen, state)):
            return given_up
        if seen is not None and seen.is_obstructed and position == 1:
            self._let_others_pass(view, waiter)
        self._show(view, waiter, position, refusal, seen)
        return refusal

    def _show(
        self,
        view: NodeView,
        waiter: Waiter,
        position: int | None,
        refusal: Refusal,
        seen: Prospects | None,
    ) -> None:
        sentence = "" if seen is None or waiter.gpus else seen.sentence
        text, steady = (
            waiting_text(view, waiter, position, refusal, times=times, sentence=sentence)
            for times in (True, False)
        )
        self._progress.show(text, steady)

    def _refresh(self, state: _QueueWaitState) -> NodeView:
        """Scan and publish, and return the view with that scan."""
        self._service.refresh_scan()
        state.refresh_at = self._clock() + REFRESH_INTERVAL_S
        return self._service.reaped_view()

    def _confirmed_obstruction(
        self, waiter: Waiter, seen: Prospects | None, state: _QueueWaitState
    ) -> Refusal | None:
        """Return the refusal when two scans of this process found the waiter obstructed."""
        if seen is None or not seen.is_obstructed:
            state.obstructed_at = None
            return None
        if state.obstructed_at is None:
            state.obstructed_at = self._clock()
        if self._clock() - state.obstructed_at < CONFIRM_AFTER_S:
            return None
        confirmed = self._request.prospects(self._refresh(state), waiter)
        if confirmed is None or not confirmed.is_obstructed:
            state.obstructed_at = None
            return None
        return confirmed.refusal

    def _let_others_pass(self, view: NodeView, waiter: Waiter) -> None:
        """Go to the end of the queue if somebody behind could be served now."""
        behind = [one for one in view.queue if one.owner != waiter.owner]
        found = (self._request.prospects(view, one) for one in behind)
        if any(one is not None and one.can_be_served_now for one in found):
            self._ledger.leave_queue(self._node, [waiter.owner], "lets others pass")
            self._ledger.join_queue(self._node, waiter)

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
    gives_up: bool
    refresh_at: float
    obstructed_at: float | None = None
    tried_with: tuple[frozenset[str], frozenset[str]] | None = None
    scan_at: float = 0.0
    scan_interval_s: float = FIRST_SCAN_DELAY_S
