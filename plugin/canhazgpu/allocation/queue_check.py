"""Check a node's queue once, for one waiter or for all that one process looks after.

The view is read once for all of them. Only the first one in the queue scans the GPUs and tries; the
others read its scans.

A waiter is obstructed where even the end of every reservation would not be enough, because of use
without reservation, quarantines or unreadable GPUs. It gives up then, unless it was told how long
to wait; and it lets others pass who could be served.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from canhazgpu.allocation.allocator import GpuAllocator, Grant
from canhazgpu.allocation.feasibility import Feasibility
from canhazgpu.allocation.queue_decision import (
    REFRESH_INTERVAL_S,
    WaitState,
    is_obstructed_for_long,
    may_be_tried,
    should_try,
)
from canhazgpu.allocation.queue_position import position_in_queue, waiting_text
from canhazgpu.allocation.refusal import Refusal, RefusalKind
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.values import NodeView, Waiter


class WaitedRequest(Protocol):
    """The request that somebody waits for."""

    def reserve(self) -> Grant | Refusal:
        """Try once to reserve the GPUs."""
        ...

    def waiter(self) -> Waiter:
        """Return the entry for the queue, after the first attempt was refused."""
        ...

    def feasibility(self, view: NodeView, waiter: Waiter) -> Feasibility | None:
        """Return what a waiter could get by the view's scan, None where that has none."""
        ...


class QueuePositions(Protocol):
    """The positions of waiters in the node's queue. Raises `StoreError`."""

    def join(self, waiter: Waiter) -> None:
        """Join the end of the queue; one that is in it stays where it is."""

    def renew(self, waiters: Sequence[Waiter]) -> None:
        """Record heartbeats."""

    def move_to_end(self, waiter: Waiter) -> None:
        """Let the others pass."""


class LedgerQueuePositions:
    """`QueuePositions` by the operations that every ledger has."""

    def __init__(self, ledger: Ledger, node: str) -> None:
        self._ledger = ledger
        self._node = node

    def join(self, waiter: Waiter) -> None:
        """See `QueuePositions`."""
        self._ledger.join_queue(self._node, waiter)

    def renew(self, waiters: Sequence[Waiter]) -> None:
        """See `QueuePositions`."""
        for one in waiters:
            self.join(one)

    def move_to_end(self, waiter: Waiter) -> None:
        """See `QueuePositions`."""
        self._ledger.leave_queue(self._node, [waiter.owner], "lets others pass")
        self.join(waiter)


@dataclass(slots=True)
class QueuedWait:
    """One who waits; `refusal` is the latest one."""

    request: WaitedRequest
    waiter: Waiter
    refusal: Refusal
    state: WaitState

    @property
    def owner(self) -> str:
        """The owner of the later grant."""
        return self.waiter.owner


@dataclass(frozen=True, slots=True)
class StillWaiting:
    """The wait goes on; the texts are those of `Progress.show`.

    `may_change_soon`: by a scan, which no event announces.
    """

    refusal: Refusal
    text: str
    steady: str
    may_change_soon: bool = True


class QueueCheck:
    """One check of the queue, by the node's ports."""

    def __init__(
        self,
        service: GpuAllocator,
        positions: QueuePositions,
        heartbeat_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the ports; heartbeats are `heartbeat_s` seconds apart."""
        self._service = service
        self._positions = positions
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self._refreshed: NodeView | None = None

    def check(self, waits: Sequence[QueuedWait]) -> dict[str, Grant | Refusal | StillWaiting]:
        """Return by owner the grant, the refusal that ends the wait, or what it waits for.

        After a grant, nothing is said of the others. Raises what the attempt raises, and
        `StoreError`.
        """
        view = self._view_with_positions(waits)
        outcomes: dict[str, Grant | Refusal | StillWaiting] = {}
        first = _first(view, waits)
        if first is not None:
            outcome = self._attempt(view, first)
            if isinstance(outcome, NodeView):
                view = outcome
            else:
                outcomes[first.owner] = outcome
                if isinstance(outcome, Grant):
                    # The next check comes at once, and the next one may have its turn.
                    return outcomes
                if len(waits) > 1:
                    view = self._service.reaped_view()
        for one in waits:
            if one.owner not in outcomes:
                outcomes[one.owner] = self._look(view, one)
        return outcomes

    def _view_with_positions(self, waits: Sequence[QueuedWait]) -> NodeView:
        """Return the view, in which all have their positions."""
        view = self._service.reaped_view()
        now, holders = self._clock(), _holders(view)
        absent = [
            one
            for one in waits
            if one.owner not in holders and position_in_queue(view, one.owner) is None
        ]
        for one in absent:
            self._positions.join(one.waiter)
            one.state.renew_at = now + self._heartbeat_s
        silent = [one for one in waits if now >= one.state.renew_at and one.owner not in holders]
        if silent:
            self._positions.renew([one.waiter for one in silent])
            for one in silent:
                one.state.renew_at = now + self._heartbeat_s
        return self._service.reaped_view() if absent or silent else view

    def _attempt(self, view: NodeView, first: QueuedWait) -> Grant | Refusal | NodeView:
        """Try or scan for the first one; return what ends its wait, or the view afterwards."""
        holds = first.owner in _holders(view)
        if holds or should_try(view, first.waiter, first.state, self._clock()):
            outcome = first.request.reserve()
            if isinstance(outcome, Grant) or outcome.kind is RefusalKind.NEVER:
                return outcome
            if first.state.gives_up and outcome.kind is RefusalKind.OBSTRUCTED:
                return outcome
            first.refusal = outcome
            return self._service.reaped_view()
        return self._refreshed_view(first) if self._clock() >= first.state.refresh_at else view

    def _look(self, view: NodeView, one: QueuedWait) -> Refusal | StillWaiting:
        seen = one.request.feasibility(view, one.waiter)
        if one.state.gives_up and (given_up := self._confirmed_obstruction(one, seen)):
            return given_up
        position = position_in_queue(view, one.owner)
        if seen is not None and seen.is_obstructed and position == 1:
            self._let_others_pass(view, one)
        sentence = "" if seen is None or one.waiter.gpus else seen.sentence
        text, steady = (
            waiting_text(view, one.waiter, position, one.refusal, times=times, sentence=sentence)
            for times in (True, False)
        )
        is_obstructed = seen is None or seen.is_obstructed
        tries = position in (None, 1) and may_be_tried(view, one.waiter)
        return StillWaiting(one.refusal, text, steady, may_change_soon=is_obstructed or tries)

    def _confirmed_obstruction(self, one: QueuedWait, seen: Feasibility | None) -> Refusal | None:
        """Return the refusal when two scans of this process found the waiter obstructed."""
        if not is_obstructed_for_long(seen, one.state, self._clock()):
            return None
        confirmed = one.request.feasibility(self._refreshed_view(one), one.waiter)
        if confirmed is None or not confirmed.is_obstructed:
            one.state.obstructed_at = None
            return None
        return confirmed.refusal

    def _refreshed_view(self, one: QueuedWait) -> NodeView:
        """Return the view with a scan of this check, which is published."""
        if self._refreshed is None:
            self._service.refresh_scan()
            self._refreshed = self._service.reaped_view()
        one.state.refresh_at = self._clock() + REFRESH_INTERVAL_S
        return self._refreshed

    def _let_others_pass(self, view: NodeView, one: QueuedWait) -> None:
        """Go to the end of the queue if somebody behind could be served now."""
        behind = [other for other in view.queue if other.owner != one.owner]
        found = (one.request.feasibility(view, other) for other in behind)
        if any(other is not None and other.can_be_served_now for other in found):
            self._positions.move_to_end(one.waiter)


def _holders(view: NodeView) -> set[str]:
    return {one.claim.owner for one in view.all_reservations()}


def _first(view: NodeView, waits: Sequence[QueuedWait]) -> QueuedWait | None:
    """Return the one to try: who holds its GPUs and was not told so, else the first in the queue.

    The answer to an attempt may have been lost. Whoever asks again is granted the same GPUs.
    """
    holders = _holders(view)
    holding = (one for one in waits if one.owner in holders)
    first = (one for one in waits if position_in_queue(view, one.owner) == 1)
    return next(holding, None) or next(first, None)
