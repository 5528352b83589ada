"""Readers who have the embedded server keep what they send, or what they do not read.

Everybody on the node may connect to it. It keeps a bounded amount for each, and for all together,
and takes changes meanwhile.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.embedded import server_conf
from canhazgpu.ledger.embedded.server_conf import (
    ANSWERS_LIMIT_MB,
    CLIENTS_LIMIT_MB,
    MEMORY_LIMIT_MB,
    REQUEST_LIMIT_MB,
)
from canhazgpu.ledger.store.connect import Role, connect

from .test_server import KEY, directory, server_kind, writer

__all__ = ["directory", "server_kind"]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server_kind")]

MB = 1 << 20
CHUNK = b"x" * MB
UNFINISHED = b"*2\r\n$3\r\nGET\r\n$%d\r\n"
HELD_MB = 2
"""What one question for the list brings."""
READ_ALL = b"LRANGE %s 0 -1\r\n" % KEY.encode()


def unfinished_request(reader: socket.socket) -> None:
    """As a request of 300 MB, of which the last byte does not come."""
    reader.sendall(UNFINISHED % (MEMORY_LIMIT_MB * MB))
    for _ in range(MEMORY_LIMIT_MB - 1):
        reader.sendall(CHUNK)


def longest_request(reader: socket.socket) -> None:
    """Each alone is allowed."""
    size = (REQUEST_LIMIT_MB - 1) * MB
    reader.sendall(UNFINISHED % size)
    reader.sendall(b"x" * (size - 1))


def requests_in_a_transaction(reader: socket.socket) -> None:
    """What is queued is kept until the transaction's end."""
    reader.sendall(b"MULTI\r\n")
    for _ in range(MEMORY_LIMIT_MB // 2):
        reader.sendall(UNFINISHED % MB + b"c" * MB + b"\r\n")


def answers_that_nobody_reads(reader: socket.socket) -> None:
    for _ in range(2 * ANSWERS_LIMIT_MB // HELD_MB):
        reader.sendall(READ_ALL)


@pytest.mark.parametrize(
    ("greedy", "readers"),
    [
        (unfinished_request, 1),
        (longest_request, 2 * MEMORY_LIMIT_MB // REQUEST_LIMIT_MB),
        (requests_in_a_transaction, 2),
        (answers_that_nobody_reads, 4),
    ],
)
def test_the_server_keeps_little_for_its_readers_and_takes_changes(
    directory: str, greedy: Callable[[socket.socket], None], readers: int
) -> None:
    with writer(directory) as client, ExitStack() as stack:
        for _ in range(HELD_MB):
            client.rpush(KEY, "x" * MB)
        path = str(connection_path(directory))
        for _ in range(readers):
            reader = stack.enter_context(connected(path))
            # Whoever is cut off cannot go on.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                greedy(reader)
            client.set(KEY + ":n", "1")
        assert client.get(KEY + ":n") == "1"
        used_mb = memory_mb(client.connection_pool.connection_kwargs["path"])
        assert used_mb < CLIENTS_LIMIT_MB + ANSWERS_LIMIT_MB + 4 * HELD_MB


def connection_path(directory: str) -> str:
    return str(server_conf.ServerDirectory.at(directory).socket)


@contextlib.contextmanager
def connected(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(60)
        one.connect(path)
        yield one


def memory_mb(path: str) -> float:
    """What the server's process has of memory."""
    with connected(path) as one:
        pid = one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4)
    rollup = Path(f"/proc/{int.from_bytes(pid, 'little')}/smaps_rollup").read_text()
    rss = next(line for line in rollup.splitlines() if line.startswith("Pss_Anon:"))
    return int(rss.split()[1]) / 1024


def test_a_request_as_long_as_any_of_ours_is_taken(directory: str) -> None:
    with connect(StoreConfig(url="embedded", embedded_dir=directory), Role.WRITE) as client:
        client.set(KEY, "x" * (MB * (REQUEST_LIMIT_MB - 1)))
        assert client.strlen(KEY) == MB * (REQUEST_LIMIT_MB - 1)
