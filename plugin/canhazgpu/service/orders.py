"""Orders: requests about another node's GPUs, which that node itself carries out; pure.

An order says which request, and who gives it: the host that gives it has found that out, and the
node takes its word. Whatever else is in the store's list of orders is refused, and answered where
it has an id.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from canhazgpu.errors import InputError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.ids import parse_gpu_ids
from canhazgpu.service.health import QuarantineRequest, UnquarantineRequest
from canhazgpu.service.holdings import ExtendRequest, ReleaseRequest, RevokeRequest

FORM = 1
"""The form of the text; a node refuses one that it does not know."""
MAX_WAIT_S = 3600.0
MAX_SKEW_S = 60.0
"""How far from the future an order may come: another server of the store has another clock."""
MAX_TEXT = 500
MAX_DURATION_S = 10 * 366 * 24 * 3600.0
MAX_UID = 2**32 - 2

OrderedRequest = (
    ReleaseRequest | ExtendRequest | RevokeRequest | QuarantineRequest | UnquarantineRequest
)

VERBS: dict[str, type[OrderedRequest]] = {
    "release": ReleaseRequest,
    "extend": ExtendRequest,
    "revoke": RevokeRequest,
    "quarantine": QuarantineRequest,
    "unquarantine": UnquarantineRequest,
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")


class OrderError(InputError):
    """What was given is no order, or none that may be carried out; the text says why."""


@dataclass(frozen=True, slots=True)
class OrderGiver:
    """Who gives an order, by the word of the host that gives it."""

    uid: int
    user: str
    host: str
    is_administrator: bool


@dataclass(frozen=True, slots=True)
class Order:
    """A request about the node `node`, whose own `node` is None: it is for where it arrives.

    `given_at` is the store's time in seconds; the order is void `wait_s` seconds later.
    """

    node: str
    request: OrderedRequest
    giver: OrderGiver
    given_at: float
    wait_s: float

    @property
    def verb(self) -> str:
        """The request's name."""
        return next(name for name, kind in VERBS.items() if isinstance(self.request, kind))


def order_to_text(order: Order) -> str:
    """Return the text of the order."""
    request = {one.name: getattr(order.request, one.name) for one in fields(order.request)}
    del request["node"]
    if request["gpus"] is not None:
        request["gpus"] = ",".join(map(str, request["gpus"]))
    giver = {one.name: getattr(order.giver, one.name) for one in fields(order.giver)}
    return json.dumps(
        {
            "form": FORM,
            "verb": order.verb,
            "node": order.node,
            "request": {name: value for name, value in request.items() if value is not None},
            "giver": giver,
            "given_at": order.given_at,
            "wait_s": order.wait_s,
        }
    )


def order_from_text(text: str) -> Order:
    """Return the order; raises `OrderError` for anything else."""
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise OrderError("it is no order: no JSON") from None
    order = _checked(found, _ORDER, "order")
    if order["form"] != FORM:
        raise OrderError("it is of another release: upgrade this node, or the host that gave it")
    kind = VERBS.get(order["verb"])
    if kind is None:
        raise OrderError(f"nothing is known of {order['verb']!r:.50}")
    giver = OrderGiver(**_checked(order["giver"], _GIVER, "giver"))
    request = _request(kind, order["request"])
    return Order(order["node"], request, giver, order["given_at"], order["wait_s"])


def refuse_if_void(order: Order, node: str, now: float) -> None:
    """Raise `OrderError` for another node's order, or one whose giver waits no longer."""
    if order.node != node:
        raise OrderError(f"it is for {order.node}, and this is {node}")
    if now > order.given_at + order.wait_s:
        late_s = now - order.given_at - order.wait_s
        raise OrderError(f"it came {late_s:.0f} s after its giver had given up")
    if order.given_at > now + MAX_SKEW_S:
        raise OrderError("it is of the future")


def _refuse_constant(text: str) -> Any:
    raise ValueError(text)


def _request(kind: type[OrderedRequest], found: Any) -> OrderedRequest:
    named = {one.name: _FIELDS[one.name] for one in fields(kind) if one.name != "node"}
    given = _checked(found, named, "request", optional=True)
    if "gpus" in given:
        try:
            given["gpus"] = parse_gpu_ids(given["gpus"])
        except InputError as exc:
            raise OrderError(str(exc)) from exc
    try:
        return kind(**given)
    except TypeError:
        raise OrderError("its request lacks something") from None


def _checked(
    found: Any, known: Mapping[str, Callable[[Any], bool]], what: str, *, optional: bool = False
) -> dict[str, Any]:
    """Return the object's members, all of them good; raises `OrderError`."""
    if not isinstance(found, dict):
        raise OrderError(f"its {what} is no object")
    for name in found.keys() - known.keys():
        raise OrderError(f"its {what} has {name!r:.50}, which is not known")
    for name, is_good in known.items():
        if name not in found and not optional:
            raise OrderError(f"its {what} has no {name}")
        if name in found and not is_good(found[name]):
            raise OrderError(f"its {what} has a {name} that cannot be")
    return dict(found)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable()


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_within(lowest: float, highest: float) -> Callable[[Any], bool]:
    def is_within(value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value) and lowest <= value <= highest

    return is_within


def _is_uid(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_UID


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


_ORDER: Mapping[str, Callable[[Any], bool]] = {
    "form": lambda value: type(value) is int,
    "verb": lambda value: isinstance(value, str),
    "node": _is_name,
    "request": _is_object,
    "giver": _is_object,
    "given_at": _is_within(0.0, 1e12),
    "wait_s": _is_within(1.0, MAX_WAIT_S),
}
_GIVER: Mapping[str, Callable[[Any], bool]] = {
    "uid": _is_uid,
    "user": _is_line,
    "host": _is_name,
    "is_administrator": _is_bool,
}
_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "gpus": lambda value: isinstance(value, str),
    "force": _is_bool,
    "duration_s": _is_within(0.001, MAX_DURATION_S),
    "reason": _is_line,
    "user": _is_line,
    "owner": _is_line,
    "job_id": _is_line,
}
