"""Bounds all the time that one process waits for the store, whatever it waits for there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import DeadlineError, StoreError
from canhazgpu.ledger.port import Ledger

MIN_WAIT_S = 0.05
"""Even with its patience used up a process hears an answer that comes at once."""
POLL_INTERVAL_S = 0.25

T = TypeVar("T")


class WaitBudget:
    """What is left of the time; used up, whatever takes longer raises `StoreError`.

    `watch` is called from time to time while the store lets us wait; it may raise `StoreError`:
    others who wait, too, may know better.
    Works by a signal, so only in a process's main thread; elsewhere the store's own time-outs are
    all there is.
    """

    def __init__(self, seconds: float, watch: Callable[[], None]) -> None:
        self._left_s = seconds
        self._watch = watch

    def spend(self, ask: Callable[[], T]) -> T:
        """Return what the store answers."""
        if threading.current_thread() is not threading.main_thread():
            return ask()
        began = time.monotonic()
        try:
            with hard_deadline(max(self._left_s, MIN_WAIT_S), self._watch, POLL_INTERVAL_S):
                return ask()
        except DeadlineError as exc:
            raise StoreError("the store took too long") from exc
        finally:
            self._left_s -= time.monotonic() - began


class _BudgetedLedger:
    """Every operation of another ledger, within the patience."""

    def __init__(self, ledger: Ledger, budget: WaitBudget) -> None:
        self._ledger = ledger
        self._wait_budget = budget

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._ledger, name)
        return lambda *given, **named: self._wait_budget.spend(partial(operation, *given, **named))


def with_wait_budget(ledger: Ledger, budget: WaitBudget) -> Ledger:
    """Return the ledger, each of whose operations spends of the patience."""
    return cast(Ledger, _BudgetedLedger(ledger, budget))
