"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LIMIT_S = 120.0
PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.25


def until(true: Callable[[], T], what: str = "what was to happen") -> T:
    """Wait for something to be true, and return it. It is asked ever more rarely."""
    deadline = time.monotonic() + LIMIT_S
    pause_s = PAUSE_S
    while not (value := true()):
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(pause_s)
        pause_s = min(1.3 * pause_s, LONGEST_PAUSE_S)
    return value
