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
from weakref import WeakSet

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


class _NoRetry(Retry):
    """Retries nothing. It has no state, so connections may share it: a copy of each takes time."""

    def __init__(self) -> None:
        super().__init__(NoBackoff(), 0)

    def __deepcopy__(self, _memo: object) -> _NoRetry:
        return self


_prepared: dict[str, redis.Redis] = {}
"""Clients that were made in advance, by what they are made for. Each is used once."""
_opened: WeakSet[redis.Redis] = WeakSet()
"""Clients of one server, as long as somebody has them."""


def prepare_client(url: StoreUrl, timeout_s: float) -> None:
    """Make a client for this address in advance: the next `open_client` takes it.

    It is for a process that is forked before it asks the store. Nothing is connected, and no name
    or password is kept.
    """
    if (key := _key(url, timeout_s)) not in _prepared and url.scheme in _ONE_SERVER:
        _prepared[key] = _one_server(url, timeout_s)


def open_client(url: StoreUrl, timeout_s: float, budget: WaitBudget) -> redis.Redis:
    """Return a client for any form of store URL; raises redis-py's errors and `OSError`."""
    if url.scheme in _ONE_SERVER:
        client = _prepared.pop(_key(url, timeout_s), None) or _one_server(url, timeout_s)
        login = {"username": url.username, "password": url.password}
        cast(Any, client.connection_pool).connection_kwargs.update(login)
        return _budgeted(client, budget)
    options = _options(timeout_s, url.username, url.password)
    if url.scheme == "redis+sentinel":
        return _open_sentinel(url, timeout_s, options, budget)
    return _open_cluster(url, options, budget)


_ONE_SERVER = ("unix", "redis", "rediss")
"""The schemes of a server that is connected to directly."""


def _key(url: StoreUrl, timeout_s: float) -> str:
    return repr((url.scheme, url.hosts, url.path, url.db, sorted(url.options.items()), timeout_s))


def _one_server(url: StoreUrl, timeout_s: float) -> redis.Redis:
    """Return a client of one server, which has no login yet."""
    options = _options(timeout_s, None, None)
    if url.scheme == "unix":
        return redis.Redis(unix_socket_path=url.path, db=url.db, **options)
    host, port = url.hosts[0]
    if url.scheme == "rediss":
        options |= {"ssl": True, **url.options}
    return redis.Redis(host=host, port=port, db=url.db, **options)


def _budgeted(client: redis.Redis, budget: WaitBudget) -> redis.Redis:
    """Return the client, which has made no connection yet."""
    pool = cast(Any, client.connection_pool)
    timeout_s = pool.connection_kwargs["socket_timeout"]
    pool.connection_class = budgeted(pool.connection_class)
    pool.connection_kwargs.update(wait_budget=budget, timeout_s=timeout_s)
    _opened.add(client)
    return client


def disconnect(client: redis.Redis) -> None:
    """End the client's connections; it connects again when it is used."""
    of_any_kind = cast(Any, client)
    if isinstance(of_any_kind, RedisCluster):
        cast(Any, of_any_kind).disconnect_connection_pools()
    else:
        of_any_kind.connection_pool.disconnect()


def disconnect_clients() -> None:
    """End the connections of this process' clients: the one made in advance is never freed."""
    for client in list(_opened):
        cast(Any, client.connection_pool).disconnect()


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
        ConnectionPool,
        connection_class=budgeted(Connection),
        wait_budget=budget,
        timeout_s=options["socket_timeout"],
    )
    from canhazgpu.ledger.store.cluster_client import ClusterClient  # noqa: PLC0415 - one server needs none

    cluster = cast(Any, ClusterClient)(
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
        "retry": _NoRetry(),
        "decode_responses": True,
        # A record with invalid UTF-8 must not keep the others from being shown.
        "encoding_errors": "replace",
        "protocol": 2,
        **_NO_CLIENT_NAME,
        "username": username,
        "password": password,
    }
