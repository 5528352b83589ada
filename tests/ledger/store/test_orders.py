"""Orders in real stores: appended, waited for, taken once, answered."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from ledger_samples import Store, observation

from canhazgpu.errors import ForeignNodeError, InputError, StoreError, UnavailableError
from canhazgpu.ledger.orders import (
    ANSWERS_KEPT_S,
    MAX_ORDER_BYTES,
    MAX_WAITING_ORDERS,
    OrderReaderKind,
    OrderState,
    is_order_id,
)
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import order_keys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.store.orders import SKIPPED_AT_ONCE, OrderStore
from canhazgpu.node.identity import NodeIdentity

FIRST, SECOND = "a" * 32, "0123456789abcdef" * 2
AGENT, CHECK = OrderReaderKind.AGENT, OrderReaderKind.CHECK


@pytest.fixture
def orders(store: Store) -> OrderStore:
    return OrderStore(store.config, Role.WRITE)


def test_orders_are_taken_in_their_order_and_answered(orders: OrderStore, node: str) -> None:
    orders.give(node, FIRST, '{"verb":"é"}')
    orders.give(node, SECOND, "{}")
    assert orders.progress(node, FIRST).state is OrderState.WAITING

    first = orders.take(node, AGENT)

    assert first is not None
    assert (first.id, first.text) == (FIRST, '{"verb":"é"}')
    assert orders.progress(node, FIRST).state is OrderState.TAKEN
    orders.answer(node, first, '{"done":1}')
    assert orders.progress(node, FIRST).answer == '{"done":1}'
    second = orders.take(node, AGENT)
    assert second is not None and second.id == SECOND
    assert orders.take(node, AGENT) is None


def test_an_order_that_was_given_twice_is_taken_once(orders: OrderStore, node: str) -> None:
    orders.give(node, FIRST, "{}")
    orders.give(node, FIRST, "{}")

    taken = orders.take(node, AGENT)

    assert taken is not None
    orders.answer(node, taken, "{}")
    orders.give(node, FIRST, "{}")
    assert orders.take(node, AGENT) is None
    assert orders.progress(node, FIRST).state is OrderState.ANSWERED


def test_many_who_take_at_once_take_each_order_once(store: Store, node: str) -> None:
    for number in range(40):
        OrderStore(store.config, Role.WRITE).give(node, f"{number:032x}", "{}")

    def take_all() -> list[str]:
        own = OrderStore(store.config, Role.WRITE)
        found = []
        while (one := own.take(node, AGENT)) is not None:
            found.append(one.id)
        return found

    with ThreadPoolExecutor(8) as pool:
        taken = [one for some in pool.map(lambda _: take_all(), range(8)) for one in some]

    assert sorted(taken) == [f"{number:032x}" for number in range(40)]


def test_what_was_taken_and_not_answered_is_interrupted_at_the_next_look(
    orders: OrderStore, node: str
) -> None:
    orders.give(node, FIRST, "{}")
    orders.take(node, AGENT)

    assert orders.take(node, AGENT) is None

    assert orders.progress(node, FIRST).state is OrderState.INTERRUPTED
    orders.give(node, FIRST, "{}")
    assert orders.take(node, AGENT) is None


@pytest.mark.parametrize(
    "garbage",
    [
        *("", " ", "x", "\0\n", "{}", FIRST),
        *(f"{FIRST[:-1]} x", f"{FIRST}0 x", f"g{FIRST[1:]} x"),
        f"{SECOND} {'x' * MAX_ORDER_BYTES}",
    ],
)
def test_what_is_no_order_is_removed(
    orders: OrderStore, store: Store, node: str, garbage: str
) -> None:
    raw: Any = store.raw_client
    raw.rpush(order_keys(node).orders, garbage, b"\xff\xfe")
    orders.give(node, FIRST, "{}")

    taken = orders.take(node, AGENT)

    assert taken is not None and taken.id == FIRST
    assert raw.llen(order_keys(node).orders) == 0
    assert raw.hkeys(order_keys(node).order_answers) == [FIRST]


def test_a_flood_keeps_nobody_from_the_next_order(
    orders: OrderStore, store: Store, node: str
) -> None:
    raw: Any = store.raw_client
    raw.rpush(order_keys(node).orders, *["x"] * (3 * SKIPPED_AT_ONCE))
    raw.rpush(order_keys(node).orders, f"{FIRST} {{}}")

    taken = orders.take(node, AGENT)

    assert taken is not None and taken.id == FIRST


def test_no_more_wait_than_may(orders: OrderStore, store: Store, node: str) -> None:
    raw: Any = store.raw_client
    raw.rpush(order_keys(node).orders, *["x"] * MAX_WAITING_ORDERS)

    with pytest.raises(UnavailableError, match="wait for"):
        orders.give(node, FIRST, "{}")
    with pytest.raises(InputError, match="longer than"):
        orders.give(node, FIRST, "x" * MAX_ORDER_BYTES)


def test_old_answers_are_removed_and_unreadable_ones(
    orders: OrderStore, store: Store, node: str
) -> None:
    raw: Any = store.raw_client
    now_ms = int(orders.now() * 1000)
    old_ms = now_ms - int(ANSWERS_KEPT_S * 1000) - 1000
    raw.hset(
        order_keys(node).order_answers,
        mapping={FIRST: f"{old_ms} {{}}", SECOND: f"{now_ms} {{}}", "x": "", "y": "a b"},
    )

    orders.take(node, AGENT)

    assert raw.hkeys(order_keys(node).order_answers) == [SECOND]


def test_a_look_costs_the_same_however_many_were_answered(
    orders: OrderStore, store: Store, node: str
) -> None:
    """Each removes some old answers; none reads all of them."""
    raw: Any = store.raw_client
    answers = order_keys(node).order_answers
    many, old_ms = 1000, int((orders.now() - ANSWERS_KEPT_S) * 1000) - 1000
    raw.hset(answers, mapping={f"{one:032x}": f"{old_ms} {{}}" for one in range(many)})

    orders.take(node, AGENT)

    assert many - 200 < raw.hlen(answers) < many
    looks = 0
    while raw.hlen(answers):
        orders.take(node, AGENT)
        looks += 1
    assert looks <= many // 4


def test_who_takes_orders_is_known(orders: OrderStore, store: Store, node: str) -> None:
    assert orders.reader(node) is None
    orders.take(node, CHECK)
    first = orders.reader(node)
    orders.take(node, AGENT)
    second = orders.reader(node)

    assert first is not None and (first.kind, first.interval_s) == (CHECK, None)
    assert second is not None and second.kind is AGENT and second.interval_s is not None
    for text in ("", "x", "[]", "{}", '{"kind":"x","at_ms":1}', '{"kind":"agent","at_ms":"y"}'):
        store.raw_client.set(order_keys(node).order_reader, text)
        assert orders.reader(node) is None
        assert orders.take(node, AGENT) is None


def test_a_wait_ends_with_the_order_and_leaves_it(
    orders: OrderStore, store: Store, node: str
) -> None:
    assert not orders.wait(node, 0.01)
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(orders.wait(node, 60.0)))
    waiting.start()
    giver = OrderStore(store.config, Role.WRITE)

    giver.give(node, FIRST, "{}")
    giver.give(node, SECOND, "{}")

    waiting.join(30)
    assert found == [True]
    assert orders.wait(node, 60.0)
    taken = [orders.take(node, AGENT), orders.take(node, AGENT)]
    assert [one and one.id for one in taken] == [FIRST, SECOND]


def test_another_clusters_node_takes_no_orders_of_this_one(store: Store, node: str) -> None:
    own = NodeIdentity(node, "a", "machine-a", "a1")
    other = NodeIdentity(node, "b", "machine-b", "b1")
    RedisLedger(store.config, Role.WRITE, identity=own).publish_scan(observation(node))
    OrderStore(store.config, Role.WRITE).give(node, FIRST, "{}")

    with pytest.raises(ForeignNodeError):
        OrderStore(store.config, Role.WRITE, other).take(node, AGENT)

    taken = OrderStore(store.config, Role.WRITE, own).take(node, AGENT)
    assert taken is not None and taken.id == FIRST


def test_a_store_that_is_away_is_an_error(orders: OrderStore, store: Store, node: str) -> None:
    gone = OrderStore(replace(store.config, url="redis://127.0.0.1:1", timeout_s=0.2), Role.WRITE)
    calls: list[Callable[[], object]] = [
        lambda: gone.give(node, FIRST, "{}"),
        lambda: gone.take(node, AGENT),
        lambda: gone.wait(node, 1.0),
        lambda: gone.progress(node, FIRST),
        lambda: gone.reader(node),
    ]
    for one in calls:
        with pytest.raises(StoreError):
            one()


def test_ids() -> None:
    assert is_order_id(FIRST)
    assert not any(map(is_order_id, ("", "a" * 31, "A" * 32, "g" * 32, f"{FIRST}\n")))
