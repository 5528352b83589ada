"""Limit the total time that one process waits for the store."""

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
"""An operation gets at least this time, even when the budget is used up."""
POLL_INTERVAL_S = 0.25

T = TypeVar("T")


class WaitBudget:
    """The time that is left for the store; an operation that exceeds it raises `StoreError`.

    While an operation waits, `watch` is called every `POLL_INTERVAL_S`. It may raise `StoreError`,
    for example because another process noted an outage. The limit uses a signal, so it works in
    the main thread only; in other threads the client's time-outs are the only limit.
    """

    def __init__(self, seconds: float, watch: Callable[[], None]) -> None:
        self._left_s = seconds
        self._watch = watch

    def spend(self, ask: Callable[[], T]) -> T:
        """Return what `ask` returns, within the budget."""
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
    """Passes every operation to another ledger, within the budget."""

    def __init__(self, ledger: Ledger, budget: WaitBudget) -> None:
        self._ledger = ledger
        self._wait_budget = budget

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._ledger, name)
        return lambda *given, **named: self._wait_budget.spend(partial(operation, *given, **named))


def with_wait_budget(ledger: Ledger, budget: WaitBudget) -> Ledger:
    """Return the ledger with every operation limited by the budget."""
    return cast(Ledger, _BudgetedLedger(ledger, budget))
