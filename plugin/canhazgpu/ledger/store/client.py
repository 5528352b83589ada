"""Open redis-py's clients, configured for few round trips and a bounded time.

Before its first command a connection sends only ``AUTH``, if there is a password, and ``SELECT``,
if the database is not 0. RESP2 needs no ``HELLO``. The client sends neither its own name nor its
library's, which would cost a round trip each.

`timeout_s` limits the connect and each answer. redis-py's retries are off: with them a dead server
costs a multiple of the time-out, and a command whose answer was lost is sent twice. A host name
takes up to one time-out for each of its addresses, and a cluster one for each dead node. A
`WaitBudget` says what counts as waiting.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import Connection, ConnectionPool
from redis.retry import Retry
from redis.sentinel import Sentinel

from canhazgpu.ledger.store.answer_wait import budgeted

if TYPE_CHECKING:
    from canhazgpu.ledger.store.url import StoreUrl
    from canhazgpu.ledger.wait_budget import WaitBudget

# Options with which redis-py does not send its library's name. Release 7.2 replaced the first form
# by the second; there only an empty name sends nothing in every release.
_NO_CLIENT_NAME: dict[str, Any] = {"lib_name": None, "lib_version": None}
if hasattr(redis, "DriverInfo"):
    _NO_CLIENT_NAME = {"driver_info": redis.DriverInfo(name="", lib_version="")}


def open_client(url: StoreUrl, timeout_s: float, budget: WaitBudget) -> redis.Redis:
    """Return a client for any form of store URL; raises redis-py's errors and `OSError`."""
    options = _options(timeout_s, url.username, url.password)
    if url.scheme == "unix":
        return _budgeted(redis.Redis(unix_socket_path=url.path, db=url.db, **options), budget)
    if url.scheme == "redis+sentinel":
        return _open_sentinel(url, timeout_s, options, budget)
    if url.scheme == "redis+cluster":
        return _open_cluster(url, options, budget)
    host, port = url.hosts[0]
    if url.scheme == "rediss":
        options |= {"ssl": True, **url.options}
    return _budgeted(redis.Redis(host=host, port=port, db=url.db, **options), budget)


def _budgeted(client: redis.Redis, budget: WaitBudget) -> redis.Redis:
    """Return the client, which has made no connection yet."""
    pool = cast(Any, client.connection_pool)
    timeout_s = pool.connection_kwargs["socket_timeout"]
    pool.connection_class = budgeted(pool.connection_class, budget, timeout_s)
    return client


def _open_sentinel(
    url: StoreUrl, timeout_s: float, options: dict[str, Any], budget: WaitBudget
) -> redis.Redis:
    """Return a client of the primary; all sentinels together get the time of one answer."""
    sentinel_options = _options(
        timeout_s / len(url.hosts),
        url.options.get("sentinel_username"),
        url.options.get("sentinel_password"),
    )
    sentinels = cast(Any, Sentinel)(url.hosts, sentinel_kwargs=sentinel_options)
    for one in sentinels.sentinels:
        _budgeted(one, budget)
    return _budgeted(sentinels.master_for(url.service, db=url.db, **options), budget)


def _open_cluster(url: StoreUrl, options: dict[str, Any], budget: WaitBudget) -> redis.Redis:
    # RedisCluster has the commands of Redis, but no common base class. It connects at once, and
    # takes a class of connections only with a URL.
    (host, port), *others = url.hosts
    pool = partial(
        ConnectionPool, connection_class=budgeted(Connection, budget, options["socket_timeout"])
    )
    cluster = cast(Any, RedisCluster)(
        url=f"redis://{host}:{port}",
        startup_nodes=[cast(Any, ClusterNode)(host, port) for host, port in others],
        connection_pool_class=pool,
        **options,
    )
    return cast(redis.Redis, cluster)


def _options(timeout_s: float, username: str | None, password: str | None) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": True,
        # A record with invalid UTF-8 must not keep the others from being shown.
        "encoding_errors": "replace",
        "protocol": 2,
        **_NO_CLIENT_NAME,
        "username": username,
        "password": password,
    }
