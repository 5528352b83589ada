"""What a waiter does now, by the ledger's view and by what it has tried before; pure.

`now` is in seconds of a monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from canhazgpu.allocation.feasibility import Feasibility
from canhazgpu.allocation.queue_position import cannot_be_satisfied, fits_by_ledger
from canhazgpu.ledger.values import NodeView, Waiter

FIRST_SCAN_DELAY_S = 1.0
MAX_SCAN_INTERVAL_S = 5.0
"""The first waiter scans again for unreserved use that has ended: after `FIRST_SCAN_DELAY_S`, then
after twice the time before, up to this."""
REFRESH_INTERVAL_S = 10.0
"""While reservations are in the way, the first waiter scans so rarely for others' use."""
CONFIRM_AFTER_S = 2.0
"""A waiter gives up when two scans of its own, so long apart, find it obstructed: what an owner
leaves behind ends within moments."""


@dataclass(slots=True)
class WaitState:
    """The state of one wait between two checks of the queue.

    `gives_up`: it ends where no release of a reservation can help.
    """

    gives_up: bool
    renew_at: float
    refresh_at: float
    obstructed_at: float | None = None
    tried_with: tuple[frozenset[str], frozenset[str]] | None = None
    scan_at: float = 0.0
    scan_interval_s: float = FIRST_SCAN_DELAY_S

    @classmethod
    def at_start(cls, now: float, *, gives_up: bool) -> WaitState:
        """Return the state of a wait that begins now."""
        return cls(gives_up, now, now + REFRESH_INTERVAL_S)


def may_be_tried(view: NodeView, waiter: Waiter) -> bool:
    """Tell whether an attempt may find out more than the ledger knows.

    By the ledger there must be enough GPUs, or never enough: the attempt then finds out whether
    that is so, and why.
    """
    return fits_by_ledger(view, waiter) or cannot_be_satisfied(view, waiter)


def should_try(view: NodeView, waiter: Waiter, state: WaitState, now: float) -> bool:
    """Tell whether the first waiter is to try: the ledger has changed, or it is time to scan.

    The state notes the attempt.
    """
    if not may_be_tried(view, waiter):
        return False
    free = (frozenset(view.reservations), frozenset(view.quarantines))
    if free == state.tried_with and now < state.scan_at:
        return False
    state.scan_interval_s = (
        FIRST_SCAN_DELAY_S
        if free != state.tried_with
        else min(state.scan_interval_s * 2, MAX_SCAN_INTERVAL_S)
    )
    state.scan_at = now + state.scan_interval_s
    state.tried_with = free
    return True


def is_obstructed_for_long(seen: Feasibility | None, state: WaitState, now: float) -> bool:
    """Tell whether the waiter has been obstructed for so long that a scan is to confirm it."""
    if seen is None or not seen.is_obstructed:
        state.obstructed_at = None
        return False
    if state.obstructed_at is None:
        state.obstructed_at = now
    return now - state.obstructed_at >= CONFIRM_AFTER_S
