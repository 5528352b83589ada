"""What each command that reads costs the store on 300 nodes: round trips and bytes, not time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis.connection
from click.testing import CliRunner, Result
from many_nodes import fill
from servers.private_redis import PrivateRedis

from canhazgpu.cli.main import cli

pytestmark = pytest.mark.slow

NODES = [f"gpu{number:03d}" for number in range(300)]
HEAD_BYTES = 4000
"""A node's head, and what the protocol adds."""
RECORD_BYTES = 9000
"""Everything that the store has of a node, apart from its history."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        fill(server, NODES)
        yield server


@pytest.fixture(scope="module")
def crowded() -> Iterator[PrivateRedis]:
    """Somebody waits on each node."""
    with PrivateRedis() as server:
        fill(server, NODES, waiting=True)
        yield server


@dataclass
class Cost:
    round_trips: int = 0
    bytes_read: int = 0


def run(server: PrivateRedis, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[Result, Cost]:
    """Run the command in this process, and count what it asks the store."""
    cost = Cost()
    send = redis.connection.AbstractConnection.send_packed_command

    def counted(connection: Any, command: Any, *more: Any, **options: Any) -> Any:
        cost.round_trips += 1
        return send(connection, command, *more, **options)

    with server.client() as client:
        before = client.info("stats")["total_net_output_bytes"]
        with monkeypatch.context() as patch:
            patch.setattr(redis.connection.AbstractConnection, "send_packed_command", counted)
            env = {"CANHAZGPU_STORE_URL": server.url, "CANHAZGPU_CONFIG": "/dev/null"}
            result = CliRunner().invoke(cli, words, env=env)
        cost.bytes_read = client.info("stats")["total_net_output_bytes"] - before
    assert result.exit_code == 0, result.output
    return result, cost


BRIEF = {
    "status --summary": 5,
    "status --summary --json": 5,
    "status --free": 5,
    "status --state quarantined,unknown": 5,
    "queue": 3,
    "admin nodes": 3,
}


@pytest.mark.parametrize("words", list(BRIEF))
def test_what_needs_no_details_reads_the_heads_alone(
    cluster: PrivateRedis, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    _, cost = run(cluster, monkeypatch, *words.split())
    assert cost.round_trips <= BRIEF[words]
    assert cost.bytes_read <= len(NODES) * HEAD_BYTES


def test_a_queue_is_read_where_somebody_waits(
    crowded: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, cost = run(crowded, monkeypatch, "queue", "--json")
    nodes = json.loads(result.output)["nodes"]
    assert [len(one["queue"]) for one in nodes] == [1] * len(NODES)
    assert cost.round_trips <= BRIEF["queue"]
    assert cost.bytes_read <= len(NODES) * (HEAD_BYTES + 500)


def test_a_filter_reads_the_details_of_the_nodes_that_it_shows(
    cluster: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, cost = run(cluster, monkeypatch, "status", "--json", "--node", NODES[7])
    assert [one["node"] for one in json.loads(result.output)["nodes"]] == [NODES[7]]
    assert cost.round_trips <= 2
    assert cost.bytes_read <= RECORD_BYTES + 1000
    result, cost = run(cluster, monkeypatch, "status", "--json", "--state", "unknown")
    assert json.loads(result.output)["nodes"] == []
    assert cost.bytes_read <= len(NODES) * HEAD_BYTES


def test_all_details_are_read_in_few_round_trips(
    cluster: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, cost = run(cluster, monkeypatch, "status", "--json")
    assert [one["node"] for one in json.loads(result.output)["nodes"]] == NODES
    assert cost.round_trips <= 2 + len(NODES) // 64 + 1
    assert cost.bytes_read <= len(NODES) * RECORD_BYTES


def test_nodes_without_a_head_are_told_the_same(
    cluster: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_heads, _ = run(cluster, monkeypatch, "status", "--summary", "--json")
    with cluster.client() as client:
        heads = [f"canhazgpu:{{{node}}}:head" for node in NODES[::2]]
        kept = dict(zip(heads, client.mget(heads), strict=True))
        client.delete(*heads)
        mixed, _ = run(cluster, monkeypatch, "status", "--summary", "--json")
        client.mset(kept)
    assert json.loads(mixed.output)["nodes"] == json.loads(by_heads.output)["nodes"]
