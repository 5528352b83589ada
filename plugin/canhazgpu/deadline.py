"""A deadline that interrupts any wait of the main thread."""

from __future__ import annotations

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
IMPORT_POLL_S = 0.02
"""While a module is imported, how often it is seen whether the import has ended."""
IMPORT_SYSTEM = "<frozen importlib._bootstrap>"
RERAISE_AFTER_S = 1.0


@contextmanager
def hard_deadline(seconds: float) -> Iterator[None]:
    """Raise `DeadlineError` in the block once `seconds` have passed; uses SIGALRM.

    Deadlines may be nested: inside the block the earlier one counts, and after it the outer one
    goes on. While a module is being imported nothing is raised: what is imported halfway stays
    broken for the rest of the process. The error is raised when the import has ended.
    """
    began = time.monotonic()
    outer_s, _ = signal.getitimer(signal.ITIMER_REAL)
    ends = began + (min(seconds, outer_s) if outer_s else seconds)

    def expire(signum: int, frame: FrameType | None) -> None:
        left_s = ends - time.monotonic()
        if left_s > TIMER_EARLY_S:
            signal.setitimer(signal.ITIMER_REAL, left_s)
        elif _is_importing(frame):
            signal.setitimer(signal.ITIMER_REAL, IMPORT_POLL_S)
        else:
            # Python ignores exceptions that are raised in a finalizer or during a fork, so the
            # error is raised again later.
            signal.setitimer(signal.ITIMER_REAL, RERAISE_AFTER_S)
            raise DeadlineError(f"no decision within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, _timer_s(ends))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer_s:
            left_s = outer_s - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(left_s, MIN_TIMER_S))


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == IMPORT_SYSTEM:
            return True
        frame = frame.f_back
    return False


def _timer_s(ends: float) -> float:
    return max(ends - time.monotonic(), MIN_TIMER_S)
