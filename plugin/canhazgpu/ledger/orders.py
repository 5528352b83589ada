"""What passes between whoever gives a node an order and the node; pure.

To the ledger an order is a text with an id. `canhazgpu.service.orders` says what it means.
"""

from __future__ import annotations

import re
from enum import Enum

from canhazgpu.frozen_dataclass import dataclass

MAX_ORDER_BYTES = 16 * 1024
MAX_ANSWER_BYTES = 256 * 1024
MAX_WAITING_ORDERS = 256
"""Orders of one node that may wait; more are not given. A hostile login may append more."""
ANSWERS_KEPT_S = 2 * 3600.0
"""How long an answer is kept, and an id known: longer than an order is valid."""

ID_DIGITS = 32

_ID = re.compile(r"[0-9a-f]{32}")


class OrderReaderKind(Enum):
    """Who takes a node's orders."""

    AGENT = "agent"
    CHECK = "check"
    """The node's health check, where no agent runs."""


@dataclass(frozen=True, slots=True)
class OrderReader:
    """Who took a node's orders last, and how long ago that is, in seconds.

    `interval_s` is the time between its last two looks, None after the first.
    """

    kind: OrderReaderKind
    age_s: float
    interval_s: float | None = None


@dataclass(frozen=True, slots=True)
class TakenOrder:
    """An order that this process has taken. `taken_at` is in seconds, by the store's clock."""

    id: str
    text: str
    taken_at: float


@dataclass(frozen=True, slots=True)
class OrderLook:
    """Whether a node has an order, and how many nodes there are."""

    has_order: bool
    nodes: int


SHORTEST_LOOK_S = 2.0
LONGEST_LOOK_S = 30.0
LOOKS_PER_S = 500
"""So often all nodes together look for orders."""
TLS_LOOKS_PER_S = 50
"""The same where each look needs a handshake, taken for a millisecond of the server's CPU."""


def look_interval_s(nodes: int, *, with_tls: bool) -> float:
    """Return how long one of so many nodes waits between two looks for orders, in seconds."""
    rate = TLS_LOOKS_PER_S if with_tls else LOOKS_PER_S
    return min(max(nodes / rate, SHORTEST_LOOK_S), LONGEST_LOOK_S)


class OrderState(Enum):
    """How far an order is, as its giver sees it."""

    WAITING = "waiting"
    TAKEN = "taken"
    """The node has begun to carry it out."""
    INTERRUPTED = "interrupted"
    """The process that had taken it has ended without an answer."""
    ANSWERED = "answered"


@dataclass(frozen=True, slots=True)
class OrderProgress:
    """How far an order is; `answer` is the node's text, "" unless it is answered."""

    state: OrderState
    answer: str = ""


def is_order_id(text: str) -> bool:
    """Return whether the text is an order's id: 32 digits of a hexadecimal number."""
    return _ID.fullmatch(text) is not None


def order_progress(recorded: str | None) -> OrderProgress:
    """Return what the recorded answer says; None is an order that nobody has taken."""
    if recorded is None:
        return OrderProgress(OrderState.WAITING)
    _, _, text = recorded.partition(" ")
    if text in (OrderState.TAKEN.value, OrderState.INTERRUPTED.value):
        return OrderProgress(OrderState(text))
    return OrderProgress(OrderState.ANSWERED, text)
