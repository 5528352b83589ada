"""Servers with the users of a cluster, whose passwords are their names backwards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from plugins.fast_set import first_and_variants
from servers.private_redis import BINARIES, PrivateRedis, need_binary

from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.store.acl.users import store_users, user_name
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger

NODES = ("n1", "n10", "N1", "a.b-c_d", "node")
PREFIXES = ("canhazgpu", "canhazgpu-b", "canhazgpu.b")


def password(user: str) -> str:
    return user[::-1]


@dataclass(frozen=True, slots=True)
class UserSite:
    """A server, and who may log in."""

    server: PrivateRedis
    direct: Any

    def config(self, role: str, node: str = "", prefix: str = "canhazgpu") -> StoreConfig:
        user = user_name(prefix, role, node)
        url = self.server.url.replace("redis://", f"redis://{user}:{password(user)}@")
        return StoreConfig(url=url, prefix=prefix, timeout_s=10.0)

    def ledger(self, role: str, node: str = "", prefix: str = "canhazgpu") -> RedisLedger:
        store_role = Role.READ if role == "reader" else Role.WRITE
        return RedisLedger(self.config(role, node, prefix), store_role)

    def client(self, role: str, node: str = "", prefix: str = "canhazgpu") -> Any:
        user = user_name(prefix, role, node)
        return redis.Redis(
            port=self.server.port,
            username=user,
            password=password(user),
            decode_responses=True,
            protocol=2,
        )

    def set_users(self) -> None:
        for prefix in PREFIXES:
            for user in store_users(prefix, NODES):
                digest = hashlib.sha256(password(user.name).encode()).hexdigest()
                self.direct.execute_command("ACL", "SETUSER", *user.line(digest).split()[1:])


@pytest.fixture(scope="module", params=first_and_variants(BINARIES))
def _server(request: pytest.FixtureRequest) -> Iterator[UserSite]:
    with (
        PrivateRedis(binary=need_binary(request.param), tcp=True) as server,
        server.client() as direct,
    ):
        yield UserSite(server, direct)


@pytest.fixture
def site(_server: UserSite) -> UserSite:
    """A server of each kind with all users and no keys."""
    _server.direct.flushall()
    for user in _server.direct.acl_users():
        if user != "default":
            _server.direct.acl_deluser(user)
    _server.set_users()
    return _server
