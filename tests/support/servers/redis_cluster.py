"""A Redis Cluster of several masters, for tests; each may have a replica."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from polling import poll_until
from redis.crc import key_slot
from servers.private_redis import PrivateRedis, free_port

SLOTS = 16384
NODE_TIMEOUT_MS = "600000"
"""No server counts as gone because it got no CPU: a replica takes over when it is told to."""


@dataclass(frozen=True)
class ClusterServer:
    """One server, a client of it alone, its name in the cluster, and its port for the others."""

    server: PrivateRedis
    client: Any
    id: str
    bus_port: int

    def ask(self, *words: object) -> Any:
        return self.client.execute_command(*words)


@dataclass(frozen=True)
class RedisCluster:
    masters: tuple[ClusterServer, ...]
    replica: ClusterServer
    """Of the first master."""

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.masters[-1].server.port}"

    def master_of(self, key: str) -> ClusterServer:
        """The master that the key was given to at the beginning."""
        return self.masters[key_slot(key.encode()) * len(self.masters) // SLOTS]

    def move_slot_of(self, key: str, target: ClusterServer) -> None:
        """Give another master the slot of this key, and all that is in it."""
        slot, source = key_slot(key.encode()), self.master_of(key)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        while names := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            port = target.server.port
            source.ask("MIGRATE", "127.0.0.1", port, "", 0, 60000, "KEYS", *names)
        for one in (target, source, *self.masters):
            one.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def fail_over(self) -> None:
        """End the first master, and let its replica take its place."""
        first, replica = self.masters[0], self.replica
        acknowledged = poll_until(lambda: first.ask("WAIT", 1, 100), "the replica to have all")
        assert acknowledged == 1
        first.client.close()
        first.server.stop()
        replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        poll_until(lambda: _is_told_of(replica, self.masters[1:]), "all to know the new master")


def _is_told_of(master: ClusterServer, others: tuple[ClusterServer, ...]) -> bool:
    port = master.server.port
    return all(
        any(row[2][1] == port for row in one.ask("CLUSTER", "SLOTS")) for one in (master, *others)
    )


@contextmanager
def cluster_of_masters(count: int = 3) -> Iterator[RedisCluster]:
    """Yield a cluster whose masters have equal shares of the slots."""
    with ExitStack() as stack:
        servers = [_started(stack) for _ in range(count + 1)]
        *masters, replica = servers
        for place, one in enumerate(masters):
            first, end = (-(-SLOTS * part // count) for part in (place, place + 1))
            one.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            one.ask("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
        for one in servers[1:]:
            masters[0].ask("CLUSTER", "MEET", "127.0.0.1", one.server.port, one.bus_port)
        poll_until(lambda: all(map(_is_whole, servers)), "all slots to have a server")
        poll_until(lambda: _knows(replica, masters[0].id), "the replica to know its master")
        replica.ask("CLUSTER", "REPLICATE", masters[0].id)
        poll_until(lambda: _is_in_step(replica), "the replica to be in step")
        yield RedisCluster(tuple(masters), replica)


def _started(stack: ExitStack) -> ClusterServer:
    bus_port = free_port()
    settings = {
        "cluster-enabled": "yes",
        "cluster-port": str(bus_port),
        "cluster-node-timeout": NODE_TIMEOUT_MS,
        "repl-diskless-sync-delay": "0",
    }
    server = stack.enter_context(PrivateRedis(tcp=True, settings=settings))
    client = stack.enter_context(server.client())
    return ClusterServer(server, client, str(client.execute_command("CLUSTER", "MYID")), bus_port)


def _is_whole(one: ClusterServer) -> bool:
    return bool(one.client.cluster("INFO")["cluster_state"] == "ok")


def _knows(one: ClusterServer, name: str) -> bool:
    return name in str(one.ask("CLUSTER", "NODES"))


def _is_in_step(one: ClusterServer) -> bool:
    return bool(one.client.info("replication").get("master_link_status") == "up")
