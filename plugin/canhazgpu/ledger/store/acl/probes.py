"""Pure: commands that a Redis user has to be allowed, and such as it must not be allowed.

``ACL DRYRUN`` answers for each without executing it.
"""

from __future__ import annotations

from collections.abc import Iterator

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.store.acl.users import ADMIN, NODE, ORDER, StoreUser
from canhazgpu.ledger.store.keys import (
    jobs_index_key,
    node_keys,
    nodes_key,
    order_keys,
    user_index_key,
)

_ANY = "any-node"
"""A node's name that stands for all: only patterns of keys decide."""

Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """A command of a user's, and whether the user is to be allowed it."""

    user: str
    command: Command
    allowed: bool

    @property
    def text(self) -> str:
        """The command as a person would write it."""
        return " ".join(self.command)


def probes_of(user: StoreUser, prefix: str) -> Iterator[Probe]:
    """Yield the probes of one of our users."""
    allowed, refused = _commands(user, prefix)
    yield from (Probe(user.name, command, allowed=True) for command in allowed)
    yield from (Probe(user.name, command, allowed=False) for command in refused)


def write_probe(user: str, prefix: str) -> Probe:
    """Return the probe of whether any user, not one of ours, may write the ledger."""
    return Probe(user, ("HSET", node_keys(_ANY, prefix).reservations, "f", "v"), allowed=False)


def _commands(user: StoreUser, prefix: str) -> tuple[list[Command], list[Command]]:
    node = user.node or _ANY
    reads, writes = _read_commands(node, prefix), _write_commands(node, prefix)
    other_node = f"{node}0"
    other = node_keys(other_node, prefix)
    index, reads_of = nodes_key(prefix), node_keys(node, prefix).scan
    jobs = jobs_index_key(1, prefix)
    server: list[Command] = [
        ("CONFIG", "SET", "maxmemory", "0"),
        ("ACL", "SETUSER", "x"),
        ("SHUTDOWN",),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("PUBLISH", "x", "y"),
        ("WATCH", index),
        ("SRANDMEMBER", index, "-1"),
        ("HRANDFIELD", reads_of, "-1"),
        ("ZRANDMEMBER", reads_of, "-1"),
    ]
    wipe: list[Command] = [("FLUSHALL",), ("FLUSHDB",)]
    foreign: list[Command] = [("GET", "elsewhere"), ("SET", "elsewhere", "1")]
    if user.role == ADMIN:
        administration: list[Command] = [
            ("ACL", "LIST"),
            ("ACL", "SETUSER", "x"),
            ("ACL", "DRYRUN", "x", "PING"),
            ("CONFIG", "GET", "save"),
            ("INFO",),
            ("SCAN", "0"),
            ("UNLINK", f"{prefix}:x"),
            ("DEL", other.history),
            ("SREM", index, "x"),
            ("SADD", jobs, "x"),
            ("SREM", jobs, "x"),
            ("EXPIRE", jobs, "1"),
        ]
        return [*reads, *writes, *administration], wipe
    give = ("RPUSH", order_keys(other_node, prefix).orders, "x")
    others_write = [
        *_write_commands(f"{node}0", prefix),
        ("DEL", other.history),
        ("XTRIM", other.history, "MAXLEN", "0"),
        ("SET", other.recorded, "x"),
        ("RENAME", other.scan, node_keys(node, prefix).scan),
        ("SREM", index, "x"),
        ("DEL", index),
        *_index_changes(jobs),
    ]
    refused = [*others_write, *server, *wipe, *foreign]
    if user.role == NODE:
        return [
            *reads,
            *_read_commands(f"{node}0", prefix),
            *writes,
            ("SADD", index, node),
            ("SADD", jobs, f"1 {node}"),
            ("SADD", user_index_key(1, 1, prefix), node),
        ], [give, *refused]
    refused += [("SADD", jobs, "x"), ("SADD", user_index_key(1, 1, prefix), "x")]
    refused += [*writes, ("SADD", index, node), ("SCRIPT", "LOAD", "x")]
    refused += _order_changes(other_node, prefix)
    if user.role == ORDER:
        return [*reads, give], refused
    return reads, [give, *refused]


def _index_changes(key: str) -> list[Command]:
    """Return changes of an index other than to add a member."""
    return [
        ("SREM", key, "x"),
        ("SPOP", key),
        ("SMOVE", key, key, "x"),
        ("SINTERSTORE", key, key),
        ("DEL", key),
        ("EXPIRE", key, "1"),
        ("SET", key, "x"),
    ]


def _order_changes(node: str, prefix: str) -> list[Command]:
    """Return changes of a node's orders other than to append one."""
    keys = order_keys(node, prefix)
    return [
        ("LPUSH", keys.orders, "x"),
        ("LPOP", keys.orders),
        ("LSET", keys.orders, "0", "x"),
        ("LTRIM", keys.orders, "1", "0"),
        ("DEL", keys.orders),
        ("HSET", keys.order_answers, "f", "v"),
        ("SET", keys.order_reader, "x"),
    ]


def _read_commands(node: str, prefix: str) -> list[Command]:
    keys = node_keys(node, prefix)
    return [
        ("PING",),
        ("TIME",),
        ("MULTI",),
        ("EXEC",),
        ("SMEMBERS", nodes_key(prefix)),
        ("SISMEMBER", nodes_key(prefix), node),
        ("SMEMBERS", jobs_index_key(1, prefix)),
        ("HGETALL", keys.scan),
        ("HGETALL", keys.reservations),
        ("GET", keys.recorded),
        ("XRANGE", keys.history, "-", "+"),
        ("XREVRANGE", keys.history, "+", "-"),
        ("XREAD", "BLOCK", "1", "STREAMS", keys.history, "0"),
    ]


def _write_commands(node: str, prefix: str) -> list[Command]:
    keys = node_keys(node, prefix)
    return [
        ("EVALSHA", "0" * 40, "1", keys.reservations),
        ("EVAL", "return 1", "1", keys.scan),
        ("HSET", keys.reservations, "f", "v"),
        ("HDEL", keys.queue, "f"),
        ("XADD", keys.history, "*", "f", "v"),
        ("SET", keys.recorded, "x"),
        ("DEL", keys.scan),
    ]
