"""Look up many keys in parallel where a lookup may hang; return the values found in time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

THREAD_RAMP_INTERVAL_S = 0.01
"""While lookups are pending, the number of threads doubles after each such interval."""
MAX_THREADS = 64


class ParallelLookup(Generic[K, V]):
    """Calls `lookup(key)` for each key in background threads, from its creation on.

    It starts with one thread, which is enough where no lookup is slow. `lookup` must not raise. A
    thread that hangs is not stopped: use this in a process that ends by `os._exit`.
    """

    def __init__(self, lookup: Callable[[K], V], keys: Iterable[K]) -> None:
        self._lookup = lookup
        self._queue = deque(dict.fromkeys(keys))
        self._pending = set(self._queue)
        self._found: dict[K, V] = {}
        self._finished = threading.Event()
        self._threads = 0
        self._start(1)

    def wait_until(self, deadline: float) -> dict[K, V]:
        """Return the values: all of them, or those found by `deadline` (monotonic, seconds)."""
        while self._pending:
            left_s = deadline - time.monotonic()
            if self._finished.wait(max(min(THREAD_RAMP_INTERVAL_S, left_s), 0)) or left_s <= 0:
                break
            self._start(self._threads)
        return self._found.copy()

    def _start(self, threads: int) -> None:
        for _ in range(min(threads, len(self._queue), MAX_THREADS - self._threads)):
            with contextlib.suppress(RuntimeError):  # the node allows no more threads
                threading.Thread(target=self._work, daemon=True).start()
            self._threads += 1

    def _work(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                key = self._queue.popleft()
                try:
                    self._found[key] = self._lookup(key)
                finally:
                    self._pending.discard(key)
                    if not self._pending:
                        self._finished.set()
