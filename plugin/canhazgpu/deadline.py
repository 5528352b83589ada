"""A hard deadline for the main thread, whatever it waits for."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from canhazgpu.errors import DeadlineError

SOON_S = 0.001
"""An outer deadline that passed meanwhile: as soon as it can be; zero would be never."""


@contextmanager
def hard_deadline(seconds: float) -> Iterator[None]:
    """Raise `DeadlineError` in the block once `seconds` have passed; uses SIGALRM.

    Inside another one the nearer of both counts, and the outer goes on afterwards.
    """

    def expire(signum: int, frame: FrameType | None) -> None:
        raise DeadlineError(f"no decision within {seconds:g} s")

    began = time.monotonic()
    outer_s, _ = signal.getitimer(signal.ITIMER_REAL)
    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, min(seconds, outer_s) if outer_s else seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer_s:
            left_s = outer_s - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(left_s, SOON_S))
