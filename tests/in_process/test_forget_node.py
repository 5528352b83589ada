"""A node that is gone is forgotten with what is reserved there; one that lives is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ledger_samples import gpus, observation
from servers.private_redis import PrivateRedis

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import InputError
from canhazgpu.in_process.adapters import Adapters
from canhazgpu.in_process.nodes import GONE_AFTER_S
from canhazgpu.in_process.service import InProcessService
from canhazgpu.ledger.orders import OrderReaderKind
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import node_keys, order_keys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.store.orders import OrderStore
from canhazgpu.ledger.values import Claim
from canhazgpu.node.users import ADMINISTRATORS_RIGHTS, Caller

ROOT = Caller(0, "root", ADMINISTRATORS_RIGHTS)


class Site:
    def __init__(self, server: PrivateRedis, direct: Any) -> None:
        self.direct = direct
        self.store = StoreConfig(url=server.url)
        self.ledger = RedisLedger(self.store, Role.WRITE)
        environ = {"CANHAZGPU_STORE_URL": server.url, "CANHAZGPU_NODE_NAME": "admin"}
        self.service = InProcessService(Adapters(environ, caller=lambda: ROOT))
        self.ledger.reserve_given(Claim("manual:1", "manual", "bob", 7), gpus(0), observation("n1"))
        OrderStore(self.store, Role.WRITE).take("n1", OrderReaderKind.AGENT)

    def not_seen_for(self, seconds: float) -> None:
        """Make the node's signs of life so old."""
        now, _ = self.direct.time()
        at_ms = int((now - seconds) * 1000)
        self.direct.hset(node_keys("n1").scan, "at", at_ms)
        self.direct.set(order_keys("n1").order_reader, f'{{"kind":"agent","at_ms":{at_ms}}}')

    def exists(self) -> int:
        keys = node_keys("n1")
        known = (keys.reservations, keys.scan, *order_keys("n1").in_order())
        return int(self.direct.exists(*known))


@pytest.fixture
def site() -> Iterator[Site]:
    with PrivateRedis() as server, server.client() as direct:
        yield Site(server, direct)


@pytest.mark.parametrize("seen", ["scan", "agent"])
def test_a_node_that_was_seen_lately_is_not_released(site: Site, seen: str) -> None:
    agent = site.direct.get(order_keys("n1").order_reader)
    site.not_seen_for(GONE_AFTER_S + 10)
    if seen == "scan":
        site.direct.hset(node_keys("n1").scan, "at", int(site.direct.time()[0] * 1000))
    else:
        site.direct.set(order_keys("n1").order_reader, agent)

    with pytest.raises(InputError, match=r"n1 was seen .* ago"):
        site.service.forget_node("n1", releases=True)

    assert site.exists() == 3


def test_a_node_that_is_gone_is_forgotten_with_what_it_had(site: Site) -> None:
    site.not_seen_for(GONE_AFTER_S + 10)
    with pytest.raises(InputError, match="of a node that is gone for good, add --release"):
        site.service.forget_node("n1")

    site.service.forget_node("n1", releases=True)

    assert site.exists() == 0
    assert site.ledger.history("n1", 0.0) == []
