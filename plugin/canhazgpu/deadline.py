"""A hard deadline for the main thread, whatever it waits for."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from canhazgpu.errors import DeadlineError


@contextmanager
def hard_deadline(seconds: float) -> Iterator[None]:
    """Raise `DeadlineError` in the block once `seconds` have passed; uses SIGALRM."""

    def expire(signum: int, frame: FrameType | None) -> None:
        raise DeadlineError(f"no decision within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
