"""Commands that a Redis user has to be allowed, and such as it must not be allowed; pure.

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
    """Return what the user has to be allowed, and what it must not be allowed."""
    node = user.node or _ANY
    other_node = f"{node}0"
    reads, writes = _read_commands(node, prefix), _write_commands(node, prefix)
    if user.role == ADMIN:
        return [*reads, *writes, *_administration(other_node, prefix)], [*_WIPE]
    give = ("RPUSH", order_keys(other_node, prefix).orders, "x")
    refused = [*_changes_of_others(node, other_node, prefix), *_server_commands(node, prefix)]
    refused += [*_WIPE, *_FOREIGN]
    if user.role == NODE:
        reads += _read_commands(other_node, prefix)
        return [*reads, *writes, *_own_index_members(node, prefix)], [give, *refused]
    refused += [
        ("SADD", jobs_index_key(1, prefix), "x"),
        ("SADD", user_index_key(1, 1, prefix), "x"),
    ]
    refused += [*writes, ("SADD", nodes_key(prefix), node), ("SCRIPT", "LOAD", "x")]
    refused += _order_changes(other_node, prefix)
    if user.role == ORDER:
        return [*reads, give], refused
    return reads, [give, *refused]


_WIPE: list[Command] = [("FLUSHALL",), ("FLUSHDB",)]
_FOREIGN: list[Command] = [("GET", "elsewhere"), ("SET", "elsewhere", "1")]


def _administration(node: str, prefix: str) -> list[Command]:
    """Return what the administrator alone may do, of the server and of any node's keys."""
    jobs = jobs_index_key(1, prefix)
    return [
        ("ACL", "LIST"),
        ("ACL", "SETUSER", "x"),
        ("ACL", "DRYRUN", "x", "PING"),
        ("CONFIG", "GET", "save"),
        ("INFO",),
        ("SCAN", "0"),
        ("UNLINK", f"{prefix}:x"),
        ("DEL", node_keys(node, prefix).history),
        ("SREM", nodes_key(prefix), "x"),
        ("SADD", jobs, "x"),
        ("SREM", jobs, "x"),
        ("EXPIRE", jobs, "1"),
    ]


def _server_commands(node: str, prefix: str) -> list[Command]:
    """Return commands about the server and all of its keys, and reads without bounds."""
    index, scan = nodes_key(prefix), node_keys(node, prefix).scan
    return [
        ("CONFIG", "SET", "maxmemory", "0"),
        ("ACL", "SETUSER", "x"),
        ("SHUTDOWN",),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("PUBLISH", "x", "y"),
        ("WATCH", index),
        ("SRANDMEMBER", index, "-1"),
        ("HRANDFIELD", scan, "-1"),
        ("ZRANDMEMBER", scan, "-1"),
    ]


def _changes_of_others(node: str, other_node: str, prefix: str) -> list[Command]:
    """Return changes of what belongs to another node, or to all."""
    index, other = nodes_key(prefix), node_keys(other_node, prefix)
    return [
        *_write_commands(other_node, prefix),
        ("DEL", other.history),
        ("XTRIM", other.history, "MAXLEN", "0"),
        ("SET", other.recorded, "x"),
        ("RENAME", other.scan, node_keys(node, prefix).scan),
        ("SREM", index, "x"),
        ("DEL", index),
        *_index_changes(jobs_index_key(1, prefix)),
    ]


def _own_index_members(node: str, prefix: str) -> list[Command]:
    """Return what a node adds of itself to the set of nodes and to the indexes."""
    return [
        ("SADD", nodes_key(prefix), node),
        ("SADD", jobs_index_key(1, prefix), f"1 {node}"),
        ("SADD", user_index_key(1, 1, prefix), node),
    ]


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
