"""Limit the time for which one process waits for the store's answers.

What counts is the time between a request on the socket and its answer, as far as this process could
have seen the answer. A process that gets no CPU, or is stopped, cannot tell how long the answer has
been there. So it waits in slices, each slice counts at most its own length, and before the store is
given up the socket is read once more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

from canhazgpu.errors import StoreError

SLICE_S = 0.05
"""Longest wait that is counted at once; also how often `watch` is called."""
MIN_WAIT_S = 0.05
"""An answer gets at least this time, even when the budget is used up."""
LATE_S = 0.5
"""A time-out that ends so much after its time found this process without a CPU."""
MAX_ATTEMPTS = 3
"""For a connection, whose waits cannot be cut into slices."""

T = TypeVar("T")


class WaitBudget:
    """The time that is left for the store; an operation that exceeds it raises `StoreError`.

    While an answer is waited for, `watch` is called once in a slice. It may raise `StoreError`, for
    example because another process noted an outage.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self._left_s = seconds
        self.watch: Callable[[], None] = lambda: None

    @property
    def left_s(self) -> float:
        """The seconds that are left, at least `MIN_WAIT_S`."""
        return max(self._left_s, MIN_WAIT_S)

    def set(self, seconds: float) -> None:
        """Begin anew with so many seconds."""
        self._left_s = seconds

    def await_answer(self, arrives: Callable[[float], bool], timeout_s: float) -> None:
        """Return once `arrives` has returned True; its argument is how long it may wait (seconds).

        Raises `TimeoutError` if there is no answer within `timeout_s`, and `StoreError` if the
        budget does not last so long.
        """
        limit_s, waited_s = min(timeout_s, self.left_s), 0.0
        while waited_s < limit_s:
            slice_s = min(SLICE_S, limit_s - waited_s)
            began = time.monotonic()
            answered = arrives(slice_s)
            spent_s = min(time.monotonic() - began, slice_s)
            self._left_s -= spent_s
            if answered:
                return
            waited_s += slice_s
            self.watch()
        # It may have come while this process had no CPU.
        if not arrives(0):
            self._give_up(timeout_s, limit_s)

    def attempt(self, act: Callable[[float], T], timeout_s: float) -> T:
        """Return what `act` returns; its argument is how long it may wait (seconds).

        An `act` that raises `TimeoutError` late is called again: it may have been this process that
        was late. What succeeds costs nothing. Raises as `await_answer` does.
        """
        limit_s = min(timeout_s, self.left_s)
        for _ in range(MAX_ATTEMPTS):
            began = time.monotonic()
            try:
                return act(limit_s)
            except TimeoutError:
                if time.monotonic() - began < limit_s + LATE_S:
                    break
                self.watch()
        self._left_s -= limit_s
        self._give_up(timeout_s, limit_s)

    def _give_up(self, timeout_s: float, limit_s: float) -> NoReturn:
        if limit_s < timeout_s:
            raise StoreError(
                "the store took too long", next_step="'canhazgpu hooks check' measures its answers"
            )
        raise TimeoutError(f"no answer within {timeout_s:g} s")


class LongWaitBudget(WaitBudget):
    """For a command that waits at the store for long: the wait is not cut into slices.

    So a process that waits does nothing meanwhile. A connection gets `connect_s` seconds.
    """

    def __init__(self, connect_s: float) -> None:
        super().__init__()
        self._connect_s = connect_s

    def await_answer(self, arrives: Callable[[float], bool], timeout_s: float) -> None:
        """See `WaitBudget.await_answer`."""
        if not arrives(timeout_s) and not arrives(0):
            raise TimeoutError(f"no answer within {timeout_s:g} s")

    def attempt(self, act: Callable[[float], T], timeout_s: float) -> T:
        """See `WaitBudget.attempt`."""
        return super().attempt(act, min(timeout_s, self._connect_s))
