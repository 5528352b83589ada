"""The Redis users of a cluster, on a private server; the password of each is its name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import redis
from servers.private_redis import PrivateRedis

from canhazgpu.ledger.store.acl.users import store_users, user_name


def add_store_users(direct: redis.Redis, nodes: Iterable[str], prefix: str = "canhazgpu") -> None:
    """Add all users of a cluster with these nodes."""
    for user in store_users(prefix, nodes):
        digest = hashlib.sha256(user.name.encode()).hexdigest()
        direct.execute_command("ACL", "SETUSER", *user.line(digest).split()[1:])


def url_of_user(server: PrivateRedis, role: str, node: str = "", prefix: str = "canhazgpu") -> str:
    """The URL with which one of them logs in to a server on a port."""
    user = user_name(prefix, role, node)
    return server.url.replace("redis://", f"redis://{user}:{user}@")
