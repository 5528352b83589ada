"""A deadline that interrupts any wait of the main thread."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from canhazgpu.errors import DeadlineError

TIMER_EARLY_S = 0.002
"""A timer may fire this much before the monotonic clock reaches its time."""
MIN_TIMER_S = 0.001
"""The shortest timer, for a deadline that has passed already; zero would disable the timer."""
TICK_S = 0.1
"""How often a deadline of running time is counted, and the most that is counted at once."""
IMPORT_POLL_S = 0.02
"""While a module is imported, how often it is seen whether the import has ended."""
IMPORT_SYSTEM = "<frozen importlib._bootstrap>"
RERAISE_AFTER_S = 1.0


@contextmanager
def hard_deadline(seconds: float, *, of_running: bool = False) -> Iterator[None]:
    """Raise `DeadlineError` in the block once `seconds` have passed; uses SIGALRM.

    With `of_running`, only time in which this process could run counts: not the time for which it
    was stopped or got no CPU. Deadlines may be nested: inside the block the earlier one counts, and
    after it the outer one goes on. While a module is being imported nothing is raised: what is
    imported halfway stays broken for the rest of the process. The error is raised when the import
    has ended.
    """
    began = time.monotonic()
    outer_s, _ = signal.getitimer(signal.ITIMER_REAL)
    clock = _Clock(seconds, began + outer_s if outer_s else None, of_running)

    def expire(signum: int, frame: FrameType | None) -> None:
        if clock.is_over:
            # Python calls this some time after the signal: here after the block. A timer that was
            # set now would end the process.
            return
        if clock.left_s() > TIMER_EARLY_S:
            signal.setitimer(signal.ITIMER_REAL, clock.timer_s())
        elif _is_importing(frame):
            signal.setitimer(signal.ITIMER_REAL, IMPORT_POLL_S)
        else:
            # Python ignores exceptions that are raised in a finalizer or during a fork, so the
            # error is raised again later.
            signal.setitimer(signal.ITIMER_REAL, RERAISE_AFTER_S)
            raise DeadlineError(f"no decision within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, clock.timer_s())
    try:
        yield
    finally:
        clock.is_over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer_s:
            left_s = outer_s - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(left_s, MIN_TIMER_S))


class _Clock:
    """The time that is left until a deadline, or until an outer one that is earlier.

    Time of running is counted from timer to timer, each interval with at most `TICK_S`.
    """

    def __init__(self, seconds: float, outer_ends: float | None, of_running: bool) -> None:
        self._left_s = seconds
        self._counted_at = time.monotonic()
        self._outer_ends = outer_ends
        self._longest_s = TICK_S if of_running else math.inf
        self.is_over = False
        """Whether the block has ended."""

    def left_s(self) -> float:
        now = time.monotonic()
        self._left_s -= min(now - self._counted_at, self._longest_s)
        self._counted_at = now
        return (
            self._left_s if self._outer_ends is None else min(self._left_s, self._outer_ends - now)
        )

    def timer_s(self) -> float:
        return min(max(self.left_s(), MIN_TIMER_S), self._longest_s)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == IMPORT_SYSTEM:
            return True
        frame = frame.f_back
    return False
