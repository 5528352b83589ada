"""What each command that reads costs the store on 300 nodes: round trips and bytes, not time."""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import ledger_samples
import pytest
import redis.connection
from click.testing import CliRunner, Result
from many_nodes import fill
from servers.private_redis import PrivateRedis

from canhazgpu.cli.main import cli
from canhazgpu.cli.status_display.renderer import StatusRenderer
from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import BookUnknownError, StoreError
from canhazgpu.in_process import completion
from canhazgpu.in_process.adapters import Adapters
from canhazgpu.in_process.service import InProcessService
from canhazgpu.in_process.status.ledger_views import LedgerViews
from canhazgpu.ledger.store import keys
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.store.nodes import node_heads
from canhazgpu.ledger.values import NodeView
from canhazgpu.service.completion import Completable, CompletionRequest
from canhazgpu.service.status import StatusRequest

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


@pytest.fixture(scope="module")
def full() -> Iterator[PrivateRedis]:
    """A GPU is free on two nodes alone."""
    with PrivateRedis() as server:
        fill(server, NODES[2:], held=range(8))
        fill(server, NODES[:2])
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
    "status --free": 6,
    "status --state quarantined,unknown": 4,
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


COUNTS_BYTES = 600
"""What a node costs of which counts tell enough."""


@pytest.mark.parametrize(
    ("words", "nodes"),
    [
        ("status --free", 2),
        ("status --free --json", 2),
        ("status --free --model h100 --json --stream", 2),
        ("status --state unknown", 0),
        ("status --model nosuch --json", 0),
        ("status --model nosuch", 0),
        ("status --partition long --state unreserved --json", 0),
    ],
)
def test_a_node_of_which_a_filter_shows_nothing_costs_its_counts_alone(
    full: PrivateRedis, monkeypatch: pytest.MonkeyPatch, words: str, nodes: int
) -> None:
    result, cost = run(full, monkeypatch, *words.split())
    assert [name for name in NODES if name in result.output] == NODES[:nodes]
    assert cost.bytes_read <= len(NODES) * COUNTS_BYTES + nodes * 2 * RECORD_BYTES


@pytest.mark.parametrize(
    "words", ["--partition gpu --summary", "--free --as-frame 100x24", "--as-frame 100x24"]
)
def test_a_summary_of_what_a_filter_shows_is_counted(
    cluster: PrivateRedis, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    result, cost = run(cluster, monkeypatch, "status", *words.split())
    assert all(f"{name}  8 GPUs  3 free" in result.output for name in NODES)
    assert cost.bytes_read <= len(NODES) * COUNTS_BYTES


@pytest.mark.parametrize(
    "words", ["--model h100 --summary", "--model h100 --free --summary", "--model h100"]
)
def test_a_summary_of_models_is_counted_by_the_heads(
    full: PrivateRedis, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    frame = () if "--summary" in words else ("--as-frame", "100x24")
    result, cost = run(full, monkeypatch, "status", *words.split(), *frame)
    assert cost.round_trips <= 6
    assert cost.bytes_read <= len(NODES) * (HEAD_BYTES + COUNTS_BYTES)
    with monkeypatch.context() as patch:
        patch.setattr(StatusRenderer, "counts_above", lambda *_: None)
        patch.setattr(StatusRenderer, "brief_above", lambda *_: None)
        judged, _ = run(full, monkeypatch, "status", *words.split(), *frame)
    assert without_ages(result.output) == without_ages(judged.output)


@pytest.mark.parametrize("words", [(), ("--wide",), ("--summary",), ("--as-frame", "80x24")])
def test_who_misspells_a_model_is_told_of_others_though_counts_name_none(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    some = NODES[:12]
    with PrivateRedis() as server, server.client() as client:
        fill(server, some)
        for key in (keys.node_keys(node).counts for node in some):
            counts = json.loads(client.get(key))
            client.set(key, json.dumps({**counts, "products": None, "models": None}))
        result, _ = run(server, monkeypatch, "status", "--model", "lllama", *words)
    assert "known: NVIDIA H100 80GB HBM3, llama-3.1-8b-..." in result.output


def test_a_terminal_has_room_for_the_few_nodes_with_a_model(
    full: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the products of all nodes' GPUs have the name: of two nodes a free one is shown."""
    words = ("status", "--model", "h100", "--free", "--as-frame", "100x24")
    result, _ = run(full, monkeypatch, *words)
    assert result.output.count("available") == 6
    assert [name for name in NODES if name in result.output] == NODES[:2]


def without_ages(text: str) -> list[list[str]]:
    """The words of each line; two questions are not asked at the same time."""
    times = r'\d+[smh]( \d+[smh])*|"generated_at":"[^"]*"'
    return [re.sub(times, "AGE", line).split() for line in text.splitlines()]


def free_tables(
    server: PrivateRedis, monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[Result, Cost]:
    """The tables of free GPUs, which are the same where each node is judged."""
    asked = run(server, monkeypatch, "status", "--free", *words)
    with monkeypatch.context() as patch:
        patch.setattr(StatusRenderer, "tables_suffice", lambda *_: False)
        judged, _ = run(server, monkeypatch, "status", "--free", *words)
    assert without_ages(asked[0].output) == without_ages(judged.output)
    return asked


@pytest.mark.parametrize("words", [(), ("--partition", "gpu")])
def test_free_gpus_are_told_by_the_counts(
    cluster: PrivateRedis,
    crowded: PrivateRedis,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    for server, waiter_bytes in ((cluster, 0), (crowded, 60)):
        result, cost = free_tables(server, monkeypatch, *words)
        assert result.output.count("available") == 3 * len(NODES)
        assert result.output.count("1 waiting: ") == (len(NODES) if waiter_bytes else 0)
        assert cost.bytes_read <= len(NODES) * (COUNTS_BYTES + waiter_bytes)


@pytest.mark.parametrize(
    ("words", "round_trips"),
    [
        ("status", 4),
        ("status --wide", 4),
        ("status --state reserved", 6),
        ("status --free --wide", 6),
        ("status --partition gpu --state available,reserved", 6),
        ("status --model h100", 6),
        ("status --model h100 --state reserved --json", 12),
        ("status --json", 6),
        ("status --free --json", 12),
        ("status --state reserved --partition gpu --json", 12),
    ],
)
def test_what_is_shown_of_ordinary_nodes_is_told_by_their_heads(
    crowded: PrivateRedis, monkeypatch: pytest.MonkeyPatch, words: str, round_trips: int
) -> None:
    """And it is what the same nodes' views tell."""
    result, cost = run(crowded, monkeypatch, *words.split())
    assert cost.round_trips <= round_trips
    assert cost.bytes_read <= len(NODES) * (HEAD_BYTES + 2 * COUNTS_BYTES)
    with monkeypatch.context() as patch:
        patch.setattr(StatusRenderer, "tables_suffice", lambda *_: False)
        patch.setattr(StatusRenderer, "texts_suffice", False)
        judged, judged_cost = run(crowded, monkeypatch, *words.split())
    assert without_ages(result.output) == without_ages(judged.output)
    assert judged_cost.bytes_read > 1.5 * cost.bytes_read


def test_who_asks_for_all_nodes_at_once_gets_no_texts(cluster: PrivateRedis) -> None:
    """But `status --json` on a terminal, or with --watch, shows all nodes."""
    service = InProcessService(Adapters({"CANHAZGPU_STORE_URL": cluster.url}))
    answer = service.status(StatusRequest(texts_suffice=True))
    assert [one.node for one in answer.nodes] == NODES
    pages = [*service.status_pages(StatusRequest(texts_suffice=True))]
    assert [one.node for page in pages for one in page.texts] == NODES
    answer = service.status(StatusRequest(tables_suffice=True))
    assert sorted(one.node for one in answer.tables) == NODES


@pytest.mark.parametrize("error", [StoreError("away"), BookUnknownError("lost")])
def test_what_was_told_before_an_error_is_not_told_twice(
    cluster: PrivateRedis, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    adapters = Adapters({"CANHAZGPU_STORE_URL": cluster.url})
    request = StatusRequest(tables_suffice=True)
    views = LedgerViews(adapters, adapters.effective_config().config, request, NODES[0])
    failing = [error]

    def fail_once(ledger: RedisLedger, nodes: list[str]) -> list[NodeView]:
        if failing:
            raise failing.pop()
        return read_nodes(ledger, nodes)

    read_nodes = RedisLedger.read_nodes
    monkeypatch.setattr(RedisLedger, "read_nodes", fail_once)
    monkeypatch.setattr(LedgerViews, "ledger", property(lambda self: self.store))
    with pytest.raises(StoreError) if isinstance(error, StoreError) else nullcontext():
        views.read()
    told = [one.node for one in views.tables]
    assert sorted(told) == ([] if isinstance(error, StoreError) else NODES[1:])


def test_nodes_whose_counts_do_not_list_free_gpus_are_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    some = NODES[:12]
    with PrivateRedis() as server, server.client() as client:
        fill(server, some)
        ledger = RedisLedger(StoreConfig(url=server.url), Role.WRITE)
        gpus = [gpu.uuid for gpu in ledger.read_nodes([some[0]])[0].scan.gpus]
        ledger.join_queue(
            some[1], replace(ledger_samples.waiter(ledger_samples.run(1)), gpus=(gpus[6],))
        )
        ledger.quarantine(some[2], gpus[6], "hot", "root")
        for node, change in (
            (some[3], {"listed": None}),
            (some[4], {"listed": [0, 1]}),
            (some[5], {"listed": ["\x1b[31m", 1, None] * 3}),
            (some[6], {"listed": [0, -1, 1e300] * 3}),
        ):
            key = keys.node_keys(node).counts
            client.set(key, json.dumps({**json.loads(client.get(key)), **change}))
        result, _ = free_tables(server, monkeypatch)
        assert result.output.count("available") == 3 * len(some) - 1
        assert "GPU 6 (" in result.output


def test_a_filters_values_are_known_by_the_counts(
    full: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, _ = run(full, monkeypatch, "status", "--model", "h1000")
    assert result.output.endswith("known: NVIDIA H100 80GB HBM3, llama-3.1-8b-...\n")
    result, _ = run(full, monkeypatch, "status", "--model", "h100", "--summary")
    assert [name for name in NODES if name in result.output] == NODES
    with pytest.raises(AssertionError, match="partition 'lnog'; did you mean 'long'"):
        run(full, monkeypatch, "status", "--partition", "lnog", "--state", "unknown")


def test_a_queue_is_read_where_somebody_waits(
    crowded: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, cost = run(crowded, monkeypatch, "queue", "--json")
    nodes = json.loads(result.output)["nodes"]
    assert [len(one["queue"]) for one in nodes] == [1] * len(NODES)
    assert cost.round_trips <= BRIEF["queue"] + 2
    assert cost.bytes_read <= len(NODES) * 500


def test_where_nobody_waits_no_node_is_read(
    cluster: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, cost = run(cluster, monkeypatch, "queue", "--json")
    assert [one["queue"] for one in json.loads(result.output)["nodes"]] == [[]] * len(NODES)
    assert cost.bytes_read <= len(NODES) * 50


def test_a_summary_builds_no_values_of_gpus(
    cluster: PrivateRedis, crowded: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes are plain: `heads.counts` counts them, and nobody judges their GPUs."""

    def judge(*_: object, **__: object) -> None:
        raise AssertionError("a plain node was judged")

    monkeypatch.setattr(node_heads, "view_from_head", judge)
    for server, waiting in ((cluster, 0), (crowded, 1)):
        for words in ("status --summary --json", "admin nodes --json"):
            result, _ = run(server, monkeypatch, *words.split())
            nodes = json.loads(result.output)["nodes"]
            assert [one["available"] for one in nodes] == [3] * len(NODES)
            assert [one["waiting"] for one in nodes] == [waiting] * len(NODES)


def test_a_stream_reads_as_much_as_the_document(
    cluster: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, cost = run(cluster, monkeypatch, "status", "--json", "--stream")
    assert [json.loads(line)["node"] for line in result.output.splitlines()] == NODES
    assert cost.round_trips <= 3 + len(NODES) // 64 + 2
    assert cost.bytes_read <= len(NODES) * RECORD_BYTES


@pytest.mark.parametrize("what", ["user", "partition", "model"])
def test_completion_reads_few_nodes(
    cluster: PrivateRedis, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(completion, "NODES_FOR_NAMES", 20)
    service = InProcessService(Adapters({"CANHAZGPU_STORE_URL": cluster.url}))
    with cluster.client() as client:
        before = client.info("stats")["total_net_output_bytes"]
        found = service.complete(CompletionRequest(Completable[what.upper()], 5.0))
        read = client.info("stats")["total_net_output_bytes"] - before
    assert found
    assert read <= 20 * HEAD_BYTES + len(NODES) * 40 + 8000


def index(server: PrivateRedis, node: str, job: int, uid: int) -> None:
    """Let all nodes be in the indexes, and one have this job and user."""
    with server.client() as client:
        day = client.time()[0] // 86400
        client.mset({keys.node_keys(name).indexed: "1" for name in NODES})
        client.sadd(keys.jobs_index_key(job), f"{job} {node} {day}")
        client.sadd(keys.user_index_key(uid, day), node)


def test_questions_about_one_job_or_user_read_their_nodes_alone(
    cluster: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(cluster, NODES[7], 102, os.getuid())
    _, cost = run(cluster, monkeypatch, "explain", "102", "--json")
    assert cost.round_trips <= 12
    assert cost.bytes_read <= RECORD_BYTES + len(NODES) * 40 + 16000
    result, cost = run(cluster, monkeypatch, "status", "--me", "--json")
    assert json.loads(result.output)["nodes"] == []
    assert cost.round_trips <= 50
    assert cost.bytes_read <= RECORD_BYTES + len(NODES) * 40 + 30000


@pytest.mark.parametrize("more", [[], ["--json"], ["--free"], ["--me"]])
def test_a_users_nodes_are_found_by_the_index(
    cluster: PrivateRedis, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    person = pwd.getpwnam("games")
    index(cluster, NODES[9], 103, person.pw_uid)
    _, cost = run(cluster, monkeypatch, "status", "--user", person.pw_name, *more)
    assert cost.round_trips <= 50
    assert cost.bytes_read <= RECORD_BYTES + len(NODES) * 40 + 30000


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_partition_in_which_a_user_has_nothing_is_known(
    cluster: PrivateRedis, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    person = pwd.getpwnam("games")
    index(cluster, NODES[9], 103, person.pw_uid)
    for who in (["--user", person.pw_name], ["--me"]):
        result, cost = run(cluster, monkeypatch, "status", *who, "--partition", "long", *more)
        assert "long" in result.output or more
        assert cost.bytes_read <= 2 * RECORD_BYTES + len(NODES) * 40 + 30000
        with pytest.raises(AssertionError, match="no node has published a partition 'lnog'"):
            run(cluster, monkeypatch, "status", *who, "--partition", "lnog", *more)
    # Some other node has this one alone.
    with cluster.client() as client:
        key = keys.node_keys(NODES[3]).counts
        kept = client.get(key)
        client.set(key, json.dumps({**json.loads(kept), "partitions": ["debug"]}))
        result, cost = run(cluster, monkeypatch, "status", "--me", "--partition", "debug", *more)
        client.set(key, kept)
    assert cost.bytes_read <= len(NODES) * COUNTS_BYTES + 2 * RECORD_BYTES + 30000


def test_a_run_is_explained_from_its_node_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"gpu{number:03d}" for number in range(60)]
    claim = replace(ledger_samples.run("other"), uid=os.getuid() + 1)
    with PrivateRedis() as server:
        fill(server, names)
        ledger = RedisLedger(StoreConfig(url=server.url), Role.WRITE)
        ledger.reserve_given(claim, [ledger_samples.uuid(0)], ledger_samples.observation("run1"))
        result, cost = run(server, monkeypatch, "explain", claim.owner, "--json")
        assert [one["node"] for one in json.loads(result.output)["events"]] == ["run1"]
        assert cost.round_trips <= 10
        assert cost.bytes_read <= 2 * RECORD_BYTES + len(names) * 500
        # Where a node's entries may be incomplete it is looked for there, and found.
        with server.client() as client:
            day = client.time()[0] // 86400
            number = keys.owner_number(claim.owner, day)
            assert client.delete(keys.jobs_index_key(number))
        again, _ = run(server, monkeypatch, "explain", claim.owner, "--json")
        assert json.loads(again.output)["events"] == json.loads(result.output)["events"]
        # Of nodes whose entries are complete nobody reads more.
        with server.client() as client:
            client.mset({keys.node_keys(name).indexed: "2" for name in [*names, "run1"]})
        with pytest.raises(AssertionError, match="nothing is known of run:unknown"):
            run(server, monkeypatch, "explain", "run:unknown")
        with server.client() as client:
            client.set(keys.node_keys("run1").indexed, "1")
        result, cost = run(server, monkeypatch, "explain", claim.owner, "--json")
        assert json.loads(again.output)["events"] == json.loads(result.output)["events"]
        assert cost.bytes_read <= 2 * RECORD_BYTES


def test_a_report_reads_two_totals_of_each_node(
    cluster: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wasted in ((), ("--wasted",)):
        result, cost = run(cluster, monkeypatch, "report", "--days", "30", "--json", *wasted)
        assert len(json.loads(result.output)["nodes"]) == len(NODES)
        assert cost.round_trips <= 4
        assert cost.bytes_read <= len(NODES) * 1000


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
    assert cost.round_trips <= 3 + len(NODES) // 64 + 1
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
