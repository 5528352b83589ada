"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
TIMEOUT_S = 240.0
"""A job that Slurm sent back begins again after two minutes, and a busy machine adds to that."""
INTERVAL_S = 0.02
LONGEST_INTERVAL_S = 0.25


def poll_until(true: Callable[[], T], what: str = "what was to happen") -> T:
    """Wait for something to be true, and return it. It is asked ever more rarely."""
    deadline = time.monotonic() + TIMEOUT_S
    interval_s = INTERVAL_S
    while not (value := true()):
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(interval_s)
        interval_s = min(1.3 * interval_s, LONGEST_INTERVAL_S)
    return value
