"""What no login may do but that of the node concerned: one list, for every role."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from ledger_samples import uuid

from canhazgpu.ledger.store.keys import node_keys, order_keys

ORDER_ID = "a" * 32


def hostile_commands(other: str, own: str, prefix: str) -> Iterator[tuple[str, ...]]:
    """Commands by which a login would change what is recorded about a node, or its orders.

    `own` is the login's own node, "" for none.
    """
    for key in (*node_keys(other, prefix).in_order(), *order_keys(other, prefix).in_order()):
        yield from (
            ("DEL", key),
            ("UNLINK", key),
            ("EXPIRE", key, "1"),
            ("SET", key, "x"),
            ("RENAME", key, f"{key}:x"),
            ("COPY", key, f"{key}:x"),
        )
        yield "EVAL", f"return redis.call('DEL', '{key}')", "0"
        yield "EVAL", "return redis.call('DEL', KEYS[1])", "1", key
        if own:
            yield "EVAL", f"return redis.call('DEL', '{key}')", "1", node_keys(own, prefix).scan
            yield "RENAME", node_keys(own, prefix).scan, key
            yield "COPY", node_keys(own, prefix).scan, key, "REPLACE"
    yield from _changes_of_records(other, prefix)
    yield from _changes_of_orders(other, prefix)


def _changes_of_records(other: str, prefix: str) -> Iterator[tuple[str, ...]]:
    keys = node_keys(other, prefix)
    yield from (
        ("HSET", keys.reservations, uuid(0), "{}"),
        ("HDEL", keys.reservations, uuid(0)),
        ("HSET", keys.scan, "data", "{}", "at", "1"),
        ("HSET", keys.quarantine, uuid(0), "{}"),
        ("XADD", keys.history, "*", "event", "release"),
        ("XDEL", keys.history, "0-1"),
        ("XTRIM", keys.history, "MAXLEN", "0"),
        ("XGROUP", "CREATE", keys.history, "g", "0"),
        ("SREM", f"{prefix}:nodes", other),
        ("DEL", f"{prefix}:nodes"),
        ("SPOP", f"{prefix}:nodes"),
        ("SMOVE", f"{prefix}:nodes", f"{prefix}:x", other),
        ("SUNIONSTORE", f"{prefix}:nodes", f"{prefix}:x"),
    )


def _changes_of_orders(node: str, prefix: str) -> Iterator[tuple[str, ...]]:
    """Changes of a node's orders other than to append one."""
    keys = order_keys(node, prefix)
    yield from (
        ("LPUSH", keys.orders, "x"),
        ("LPOP", keys.orders),
        ("RPOP", keys.orders),
        ("LREM", keys.orders, "0", "x"),
        ("LSET", keys.orders, "0", "x"),
        ("LTRIM", keys.orders, "1", "0"),
        ("LINSERT", keys.orders, "BEFORE", "x", "y"),
        ("LMOVE", keys.orders, keys.orders, "LEFT", "RIGHT"),
        ("BLMOVE", keys.orders, keys.orders, "LEFT", "RIGHT", "0.01"),
        ("RPOPLPUSH", keys.orders, keys.orders),
        ("SORT", keys.orders, "ALPHA", "STORE", keys.orders),
        ("XADD", keys.orders, "*", "f", "v"),
        ("RPUSH", keys.order_answers, "x"),
        ("RPUSH", keys.order_reader, "x"),
        ("HSET", keys.order_answers, ORDER_ID, "1 {}"),
        ("HDEL", keys.order_answers, ORDER_ID),
        ("EVAL", f"return redis.call('RPUSH', '{keys.orders}', 'x')", "0"),
        ("RPUSH", node_keys(node, prefix).history, "x"),
        ("RPUSH", f"{prefix}:nodes", "x"),
        ("RPUSH", f"{prefix}:orders", "x"),
        ("RPUSH", "elsewhere", "x"),
    )


SERVER_COMMANDS = [
    "FLUSHALL", "FLUSHDB", "SWAPDB 0 1", "CONFIG GET *", "CONFIG SET maxmemory 1",
    "SHUTDOWN NOSAVE",
    "ACL LIST", "ACL SETUSER default on", "SCRIPT FLUSH", "SCRIPT KILL", "FUNCTION FLUSH", "KEYS *",
    "SCAN 0", "RANDOMKEY", "DBSIZE", "CLIENT LIST", "CLIENT KILL TYPE normal", "MONITOR",
    "REPLICAOF 127.0.0.1 1", "SAVE", "PUBLISH x y", "SUBSCRIBE x", "PSUBSCRIBE *", "GET elsewhere",
    "SET elsewhere 1", "WATCH canhazgpu:nodes", "SRANDMEMBER canhazgpu:nodes -9",
    "HRANDFIELD canhazgpu:{n1}:scan -9", "ZRANDMEMBER canhazgpu:{n1}:scan -9",
    "MIGRATE 127.0.0.1 1 x 0 1", "CLUSTER RESET", "MODULE LIST", "INFO",
]  # fmt: skip


def assert_denied(client: Any, command: tuple[str, ...]) -> None:
    with pytest.raises(redis.ResponseError) as caught:
        client.execute_command(*command)
    text = str(caught.value)
    words = ("permission", "NOPERM", "ACL failure", "The user executing the script can't")
    assert any(word in text for word in words), (command, text)
