"""What a client of Redis Cluster asks beside the ledger's own commands: its slots, once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ledger_samples import Store, gpus, job, observation, run, waiter
from plugins.fast_set import first_and_variants
from servers.private_redis import BINARIES, PrivateRedis, cluster_of_one

from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.journal_entries import JournalEntry, NumberedEntry
from canhazgpu.ledger.orders import OrderReaderKind
from canhazgpu.ledger.store.connect import Role, connect
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.store.orders import OrderStore

# The embedded store lets nobody count its commands.
STORES_THAT_COUNT = first_and_variants([*BINARIES, "cluster"])

pytestmark = pytest.mark.slow
NODES = ("n1", "n2", "n3")


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with cluster_of_one() as started:
        yield started


def calls(server: PrivateRedis) -> dict[str, int]:
    with server.client() as direct:
        found = direct.info("commandstats")
    return {name.removeprefix("cmdstat_"): one["calls"] for name, one in found.items()}


def use_all_of(ledger: RedisLedger) -> None:
    """Do what hooks, people and health checks do."""
    for node in NODES:
        ledger.publish_scan(observation(node), frozenset())
        ledger.keep_indexes(node)
    ledger.reserve_count(job(1), 1, observation("n1"))
    ledger.reserve_given(job(2), gpus(1), observation("n1"))
    note = JournalEntry("prolog", 1.0, job(1).owner, claim=job(1), reason="refused")
    ledger.record_entries("n1", "token", [NumberedEntry(1, note)])
    ledger.join_queue("n2", waiter(run(1)))
    ledger.renew("n1", job(1).owner)
    ledger.quarantine("n2", gpus(0)[0], "fan", "root")
    ledger.unquarantine("n2", gpus(0)[0], "root")
    ledger.read_nodes()
    assert [len(page) for page in ledger.read_node_pages(NODES)] == [3]
    ledger.read_usage(3)
    ledger.history("n1", 0)
    ledger.wait_for_event("n1", "0-0", 0.01)
    assert "n1" in ledger.find_job("1").nodes
    ledger.find_user(1000, 1)
    ledger.leave_queue("n2", [run(1).owner], "end")
    ledger.release("n1", job(1).owner, "end")
    ledger.forget_node("n3")


def test_no_table_of_commands_is_fetched_and_no_key_is_asked_for(server: PrivateRedis) -> None:
    store = StoreConfig(url=f"redis+cluster://127.0.0.1:{server.port}", timeout_s=20.0)
    before = calls(server)
    use_all_of(RedisLedger(store, Role.WRITE))
    orders = OrderStore(store, Role.WRITE)
    orders.give("n1", "a" * 32, "x")
    assert orders.look("n1").has_order and orders.wait("n1", 0.1)
    assert orders.take("n1", OrderReaderKind.AGENT)
    assert orders.progress("n1", "a" * 32) and orders.reader("n1")
    asked = {name for name, count in calls(server).items() if count > before.get(name, 0)}
    assert "cluster|slots" in asked or "cluster" in asked
    assert not [name for name in asked if name.startswith("command")]


def test_a_command_that_is_not_known_here_is_used_all_the_same(server: PrivateRedis) -> None:
    store = StoreConfig(url=f"redis+cluster://127.0.0.1:{server.port}", timeout_s=20.0)
    with connect(store, Role.WRITE) as client:
        assert client.incr("k") == 1
        assert client.get("k") == "1"


@pytest.mark.parametrize("store", STORES_THAT_COUNT, indirect=True, scope="session")
def test_a_look_at_a_node_costs_one_question_more_than_on_a_single_server(
    server: PrivateRedis, store: Store
) -> None:
    """The slots: the rest is the same."""

    def asked(direct: object, config: StoreConfig) -> int:
        ledger = RedisLedger(config, Role.READ)
        before = sum(stats(direct).values())
        ledger.read_nodes(["n1"])
        return sum(stats(direct).values()) - before

    def stats(direct: object) -> dict[str, int]:
        found = direct.info("commandstats")  # type: ignore[attr-defined]
        counted = {name: one["calls"] for name, one in found.items()}
        return {name: n for name, n in counted.items() if name not in ("cmdstat_info",)}

    in_cluster = StoreConfig(url=f"redis+cluster://127.0.0.1:{server.port}", timeout_s=20.0)
    with server.client() as direct:
        more = asked(direct, in_cluster) - asked(store.raw_client, store.config)
    assert more <= 1
