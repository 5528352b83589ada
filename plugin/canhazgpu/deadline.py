"""A deadline that interrupts any wait of the main thread."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from canhazgpu.errors import DeadlineError

TIMER_EARLY_S = 0.002
"""A timer may fire this much before the monotonic clock reaches its time."""
MIN_TIMER_S = 0.001
"""The shortest timer, for a deadline that has passed already; zero would disable the timer."""
RERAISE_AFTER_S = 1.0


@contextmanager
def hard_deadline(
    seconds: float, watch: Callable[[], None] | None = None, every_s: float = 0.0
) -> Iterator[None]:
    """Raise `DeadlineError` in the block once `seconds` have passed; uses SIGALRM.

    Deadlines may be nested: inside the block the earlier one counts, and after it the outer one
    goes on. `watch` is called every `every_s` seconds in the block; it may raise, too.
    """
    began = time.monotonic()
    outer_s, _ = signal.getitimer(signal.ITIMER_REAL)
    ends = began + (min(seconds, outer_s) if outer_s else seconds)

    def expire(signum: int, frame: FrameType | None) -> None:
        if time.monotonic() >= ends - TIMER_EARLY_S or watch is None:
            # Python ignores exceptions that are raised in a finalizer or during a fork, so the
            # error is raised again later.
            signal.setitimer(signal.ITIMER_REAL, RERAISE_AFTER_S)
            raise DeadlineError(f"no decision within {seconds:g} s")
        watch()
        signal.setitimer(signal.ITIMER_REAL, _timer_s(ends, every_s))

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, _timer_s(ends, every_s))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer_s:
            left_s = outer_s - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(left_s, MIN_TIMER_S))


def _timer_s(ends: float, every_s: float) -> float:
    left_s = max(ends - time.monotonic(), MIN_TIMER_S)
    return min(left_s, every_s) if every_s else left_s
