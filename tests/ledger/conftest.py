"""Real stores of every kind, and nodes that no other test knows."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from ledger_samples import Store, new_node_name, observation
from plugins.fast_set import first_and_variants
from redis.cluster import RedisCluster
from servers.private_redis import BINARIES, PrivateRedis, cluster_of_one, need_binary

from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.embedded import server as embedded
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.store.keys import NodeKeys, node_keys
from canhazgpu.ledger.store.ledger import RedisLedger

TIMEOUT_S = 5.0


@pytest.fixture(scope="session", params=first_and_variants([*BINARIES, "embedded", "cluster"]))
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Each kind of store in turn."""
    if request.param == "embedded":
        yield from _embedded_store()
        return
    if request.param == "cluster":
        with cluster_of_one() as server, server.client() as direct:
            url = f"redis+cluster://127.0.0.1:{server.port}"
            yield Store(StoreConfig(url=url, timeout_s=TIMEOUT_S), direct)
        return
    with PrivateRedis(binary=need_binary(request.param)) as server, server.client() as direct:
        yield Store(StoreConfig(url=server.url, timeout_s=TIMEOUT_S), direct)


def _embedded_store() -> Iterator[Store]:
    base = Path(tempfile.mkdtemp(prefix="chg-ledger-"))
    base.chmod(0o755)
    directory = str(base / "store")
    config = StoreConfig(url="embedded", embedded_dir=directory, timeout_s=TIMEOUT_S)
    try:
        login = embedded.ensure_running(directory, write=True, wait_s=TIMEOUT_S)
        with redis.Redis(
            unix_socket_path=login.socket,
            username=login.username,
            password=login.password,
            decode_responses=True,
            protocol=2,
        ) as direct:
            yield Store(config, direct)
    finally:
        found = embedded.status(directory)
        embedded.stop(directory)
        if found.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGKILL)
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(autouse=True)
def clients_of_clusters_hang_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End the connections of the clients that a test makes, which connect again when used.

    They refer to themselves. Whether the collector ends their sockets with a warning depends on
    what it comes to first.
    """
    made: list[RedisCluster] = []
    create = RedisCluster.__init__

    def remember(self: RedisCluster, *given: object, **named: object) -> None:
        made.append(self)
        create(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(RedisCluster, "__init__", remember)
    yield
    for client in made:
        if hasattr(client, "nodes_manager"):
            client.disconnect_connection_pools()


@pytest.fixture
def restartable_server() -> Iterator[PrivateRedis]:
    """A server of the test's own, to be restarted, paused and killed; it keeps its data."""
    with PrivateRedis(persist=True) as server:
        yield server


@pytest.fixture
def ledger(store: Store) -> RedisLedger:
    return store.ledger()


@pytest.fixture
def node() -> str:
    return new_node_name()


@pytest.fixture
def node_hashes(node: str) -> NodeKeys:
    return node_keys(node)


@pytest.fixture
def observe(node: str) -> Callable[..., Observation]:
    """Observations of the test's node."""

    def make(gpus: int = 4, **details: object) -> Observation:
        return observation(node, gpus, **details)  # type: ignore[arg-type]

    return make
