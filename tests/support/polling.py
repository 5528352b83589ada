"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
TIMEOUT_S = 120.0
INTERVAL_S = 0.05


def poll_until(true: Callable[[], T], what: str = "what was to happen") -> T:
    """Wait for something to be true, and return it."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (value := true()):
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(INTERVAL_S)
    return value
