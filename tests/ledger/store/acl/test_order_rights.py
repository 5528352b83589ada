"""What the login for orders may do, on real servers: read, and append to nodes' orders."""

from __future__ import annotations

import pytest
from ledger_samples import contents, gpus, job, observation, uuid

from canhazgpu.errors import StoreError
from canhazgpu.ledger.orders import OrderReaderKind, OrderState
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import node_keys, order_keys
from canhazgpu.ledger.store.orders import OrderStore

from .conftest import NODES, PREFIXES, UserSite
from .hostile_commands import ORDER_ID as ID
from .hostile_commands import SERVER_COMMANDS, assert_denied, hostile_commands
from .test_rights import PAIRS


def orders(site: UserSite, role: str, node: str = "", prefix: str = "canhazgpu") -> OrderStore:
    return OrderStore(site.config(role, node, prefix), Role.WRITE)


@pytest.mark.parametrize("node", NODES)
def test_who_may_order_orders_any_node_and_is_answered(site: UserSite, node: str) -> None:
    giver, own = orders(site, "order"), orders(site, "node", node)
    giver.give(node, ID, "{}")
    assert own.wait(node, 10.0)

    taken = own.take(node, OrderReaderKind.AGENT)

    assert taken is not None
    own.answer(node, taken, "{}")
    assert giver.progress(node, ID).state is OrderState.ANSWERED
    assert giver.reader(node) is not None


def test_the_administrator_orders_too(site: UserSite) -> None:
    orders(site, "admin").give("n1", ID, "{}")

    assert orders(site, "node", "n1").take("n1", OrderReaderKind.CHECK) is not None


def test_the_login_for_orders_reads_as_a_reader(site: UserSite) -> None:
    site.ledger("admin").reserve_given(job(1), gpus(0), observation("n1"))

    (view,) = site.ledger("order").read_nodes()

    assert uuid(0) in view.reservations
    assert site.ledger("order").history("n1", 0.0)[-1].kind == "grant"


@pytest.mark.parametrize("node", ["n1", "a.b-c_d"])
def test_the_login_for_orders_changes_nothing_else(site: UserSite, node: str) -> None:
    site.ledger("admin").reserve_given(job(1), gpus(0), observation(node))
    own = orders(site, "node", node)
    orders(site, "order").give(node, ID, "{}")
    own.take(node, OrderReaderKind.AGENT)
    orders(site, "order").give(node, "b" * 32, "{}")
    keys = [*node_keys(node).in_order(), *order_keys(node).in_order(), "canhazgpu:nodes"]
    before = contents(site.direct, keys)

    with site.client("order") as client:
        for command in (
            *hostile_commands(node, "", "canhazgpu"),
            ("SADD", "canhazgpu:nodes", node),
            ("SCRIPT", "LOAD", "return 1"),
            *(tuple(one.split()) for one in SERVER_COMMANDS),
        ):
            assert_denied(client, command)

    assert contents(site.direct, keys) == before


@pytest.mark.parametrize(("own", "other"), PAIRS)
def test_no_node_orders_another(site: UserSite, own: str, other: str) -> None:
    orders(site, "order").give(other, ID, "{}")
    before = contents(site.direct, order_keys(other).in_order())

    with site.client("node", own) as client:
        for command in (
            ("RPUSH", order_keys(other).orders, "x"),
            ("LMOVE", order_keys(own).orders, order_keys(other).orders, "LEFT", "RIGHT"),
        ):
            assert_denied(client, command)
    with pytest.raises(StoreError, match=f"the login of {own} changes that node alone"):
        orders(site, "node", own).give(other, "b" * 32, "{}")

    assert contents(site.direct, order_keys(other).in_order()) == before


def test_a_reader_orders_nobody(site: UserSite) -> None:
    with site.client("reader") as client:
        for command in (("RPUSH", order_keys("n1").orders, "x"),):
            assert_denied(client, command)
    with pytest.raises(StoreError, match=r"lacks the right \+rpush"):
        orders(site, "reader").give("n1", ID, "{}")

    assert site.direct.exists(*order_keys("n1").in_order()) == 0


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_login_of_one_cluster_orders_no_node_of_another(site: UserSite, prefix: str) -> None:
    with site.client("order", "", prefix) as client:
        for other in (one for one in PREFIXES if one != prefix):
            for command in (
                ("RPUSH", order_keys("n1", other).orders, "x"),
                ("HGETALL", node_keys("n1", other).scan),
            ):
                assert_denied(client, command)
