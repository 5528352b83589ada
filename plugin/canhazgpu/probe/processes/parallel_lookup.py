"""Ask many things at once that may be slow or never answer, and do without those that do not."""

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
"""As long as questions are open, this often there are twice as many threads that ask."""
MAX_THREADS = 64


class ParallelLookup(Generic[K, V]):
    """The answers to `ask(key)` for each key, asked for in the background from now on.

    One thread suffices where all answer at once, and costs little. `ask` raises nothing. A thread
    that hangs is left behind: gather in a process that ends by `os._exit`.
    """

    def __init__(self, ask: Callable[[K], V], keys: Iterable[K]) -> None:
        self._ask = ask
        self._questions = deque(dict.fromkeys(keys))
        self._open = set(self._questions)
        self._answers: dict[K, V] = {}
        self._finished = threading.Event()
        self._threads = 0
        self._start(1)

    def wait_until(self, deadline: float) -> dict[K, V]:
        """Return what is answered when all is, or else at `deadline` (monotonic, seconds)."""
        while self._open:
            left_s = deadline - time.monotonic()
            if self._finished.wait(max(min(THREAD_RAMP_INTERVAL_S, left_s), 0)) or left_s <= 0:
                break
            self._start(self._threads)
        return self._answers.copy()

    def _start(self, threads: int) -> None:
        for _ in range(min(threads, len(self._questions), MAX_THREADS - self._threads)):
            with contextlib.suppress(RuntimeError):  # no room for a thread
                threading.Thread(target=self._work, daemon=True).start()
            self._threads += 1

    def _work(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                key = self._questions.popleft()
                try:
                    self._answers[key] = self._ask(key)
                finally:
                    self._open.discard(key)
                    if not self._open:
                        self._finished.set()
