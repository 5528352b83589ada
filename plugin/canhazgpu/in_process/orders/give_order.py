"""Give another node an order, and wait until the node has answered it."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from canhazgpu.durations import short_duration_text
from canhazgpu.errors import InputError, OrderInterruptedError, UnavailableError
from canhazgpu.ledger.orders import OrderReader, OrderReaderKind, OrderState
from canhazgpu.node.users import require_may_reserve
from canhazgpu.service.holdings import ExtendRequest
from canhazgpu.service.order_answers import Answer, answer_from_text
from canhazgpu.service.orders import Order, OrderedRequest, OrderGiver, order_to_text

if TYPE_CHECKING:
    from canhazgpu.allocation.progress import Progress
    from canhazgpu.ledger.store.orders import OrderStore
    from canhazgpu.node.users import Caller

AGENT_WAIT_S = 60.0
"""How long an order to a node with an agent is valid: it takes one within a second."""
CHECK_WAIT_S = 600.0
"""The same without an agent, until two health checks are known to lie closer together."""
LONGEST_CHECK_WAIT_S = 1800.0
FIRST_LOOK_S = 0.05
LONGEST_LOOK_S = 1.0
LATE_S = 15.0
"""How long the outcome of an order that was taken in the last moment is waited for."""


class OrderCommand:
    """Gives one order; `wait` and `clock` are for tests.

    `before_wait` is called after the order was given, with the longest wait in seconds.
    """

    def __init__(
        self,
        orders: OrderStore,
        node: str,
        order_id: str,
        progress: Progress,
        before_wait: Callable[[float], None] = lambda _longest_s: None,
        wait: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._orders = orders
        self._node = node
        self._id = order_id
        self._before_wait = before_wait
        self._progress = progress
        self._wait = wait
        self._clock = clock
        self._given: tuple[Order, OrderReader, float] | None = None

    def carry_out(self, request: OrderedRequest, caller: Caller, kind: type[Answer]) -> Answer:
        """Return the node's answer; raises what `give` and `outcome` raise."""
        self.give(request, caller)
        return self.outcome(kind)

    def give(self, request: OrderedRequest, caller: Caller) -> None:
        """Give the order; raises `InputError` where nobody takes the node's, and `StoreError`."""
        if isinstance(request, ExtendRequest):
            require_may_reserve(caller)
        reader = self._orders.reader(self._node)
        if reader is None:
            raise InputError(
                f"{self._node} takes no orders: neither an agent nor a health check of this release"
                " has looked for any there"
            )
        order = self._order(request, caller, order_wait_s(reader))
        self._given = (order, reader, self._clock())
        try:
            self._orders.give(self._node, self._id, order_to_text(order))
        except KeyboardInterrupt:
            raise OrderInterruptedError(self._interrupted_text(order)) from None
        self._before_wait(order.wait_s + LATE_S)

    def outcome(self, kind: type[Answer]) -> Answer:
        """Wait, and return the node's answer; raises the error with which the node answered.

        Raises `UnavailableError` where nobody answered in time, `OrderInterruptedError` for Ctrl-C,
        and `StoreError`.
        """
        if self._given is None:
            raise AssertionError("an order is given before its outcome")
        order, reader, began = self._given
        try:
            text = self._answer(order, reader, began)
        except KeyboardInterrupt:
            raise OrderInterruptedError(self._interrupted_text(order)) from None
        finally:
            self._progress.done()
        return answer_from_text(kind, text, self._node)

    def _order(self, request: OrderedRequest, caller: Caller, wait_s: float) -> Order:
        giver = OrderGiver(caller.uid, caller.user, _host(), caller.rights.may_administrate)
        return Order(self._node, request, giver, self._orders.now(), wait_s)

    def _answer(self, order: Order, reader: OrderReader, began: float) -> str:
        look_s = FIRST_LOOK_S
        while True:
            waited_s = self._clock() - began
            found = self._orders.progress(self._node, self._id)
            if found.state is OrderState.ANSWERED:
                return found.answer
            if found.state is OrderState.INTERRUPTED:
                raise UnavailableError(
                    f"{self._node} began to carry the order out and was interrupted: 'canhazgpu"
                    f" status --node {self._node}' shows what it has done"
                )
            is_taken = found.state is OrderState.TAKEN
            if waited_s > order.wait_s + (LATE_S if is_taken else 0.0):
                self._raise_unanswered(waited_s, is_taken=is_taken)
            self._show(waited_s, order, reader, is_taken=is_taken)
            self._wait(look_s)
            look_s = min(look_s * 1.5, LONGEST_LOOK_S)

    def _raise_unanswered(self, waited_s: float, *, is_taken: bool) -> None:
        if is_taken:
            raise UnavailableError(
                f"{self._node} has begun to carry the order out, and has not answered: 'canhazgpu"
                f" status --node {self._node}' shows what it has done"
            )
        raise UnavailableError(
            f"{self._node} has not answered for {waited_s:.0f} s, and will not carry the order out:"
            " 'canhazgpu admin nodes' shows when it was last seen"
        )

    def _show(self, waited_s: float, order: Order, reader: OrderReader, *, is_taken: bool) -> None:
        if waited_s < 1.0:
            return
        if is_taken:
            steady = f"{self._node} carries the order out"
        else:
            steady = f"{self._node} has not answered; its order is void at {_end_text(order)}"
        self._progress.show(f"{steady}; {reader_text(reader, waited_s)}", steady)

    def _interrupted_text(self, order: Order) -> str:
        return f"interrupted: {self._node} may still carry the order out, until {_end_text(order)}"


def order_wait_s(reader: OrderReader) -> float:
    """Return how long an order to this reader is valid, in seconds."""
    if reader.kind is OrderReaderKind.AGENT:
        return AGENT_WAIT_S
    if reader.interval_s is None:
        return CHECK_WAIT_S
    return math.ceil(min(max(2 * reader.interval_s + 60.0, AGENT_WAIT_S), LONGEST_CHECK_WAIT_S))


def reader_text(reader: OrderReader, waited_s: float = 0.0) -> str:
    """Return who takes the node's orders, and when: ``its health check runs every 5m, …``."""
    age = short_duration_text(reader.age_s + waited_s)
    if reader.kind is OrderReaderKind.AGENT:
        return f"its agent was last seen {age} ago"
    if reader.interval_s is None:
        return f"its health check, which takes orders, ran {age} ago"
    every = short_duration_text(reader.interval_s)
    return f"its health check, which takes orders, runs every {every}, and ran {age} ago"


def _end_text(order: Order) -> str:
    return time.strftime("%H:%M:%S", time.localtime(order.given_at + order.wait_s))


def _host() -> str:
    return socket.gethostname().split(".")[0]
