"""A page over a store of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hosts.web_server import WebServer
from servers.private_redis import PrivateRedis
from servers.shown_cluster import fill

from canhazgpu.ledger.store.ledger import RedisLedger


@dataclass(frozen=True, slots=True)
class Shown:
    server: PrivateRedis
    ledger: RedisLedger
    web: WebServer


@pytest.fixture(scope="module")
def shown() -> Iterator[Shown]:
    """Two nodes, see `fill`; tests that share it do not change the ledger."""
    with PrivateRedis() as server:
        ledger = fill(server)
        with WebServer(server.url, {"web.user_header": "X-Remote-User"}) as web:
            yield Shown(server, ledger, web)
