"""A ledger and orders whose nodes lie on several masters of a Redis Cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ledger_samples import gpus, job, observation, run, waiter
from servers.redis_cluster import RedisCluster, cluster_of_masters

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import StoreError
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.orders import OrderReaderKind
from canhazgpu.ledger.port import GrantedGpus
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import node_keys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.store.orders import OrderStore
from canhazgpu.ledger.values import NodeHead
from canhazgpu.status.heads.counts import CountedNode, counted_by_counts

pytestmark = pytest.mark.slow
NODES = tuple(f"n{number:02}" for number in range(12))


@pytest.fixture
def cluster() -> Iterator[RedisCluster]:
    with cluster_of_masters() as started:
        yield started


def opened(cluster: RedisCluster) -> RedisLedger:
    return RedisLedger(StoreConfig(url=cluster.url, timeout_s=60.0), Role.WRITE)


def fill(ledger: RedisLedger) -> None:
    """Job 7 is on each node; somebody waits on the first one."""
    for node in NODES:
        seen = observation(node)
        ledger.publish_scan(seen)
        assert isinstance(ledger.reserve_given(job(7), gpus(0), seen), GrantedGpus)
        ledger.keep_indexes(node)
    ledger.join_queue(NODES[0], waiter(run(1)))


def tell_the_same(ledger: RedisLedger, holding: tuple[str, ...] = NODES) -> None:
    """All questions of many nodes have answers of all masters."""
    views = ledger.read_nodes()
    assert tuple(view.node for view in views) == NODES
    assert tuple(view.node for view in views if view.reservations) == holding
    heads = list(ledger.read_node_heads())
    assert [head.node for head in heads if head.content] == list(NODES)

    def count(one: object) -> CountedNode | None:
        return counted_by_counts(one, UsagePolicy(1024))  # type: ignore[arg-type]

    counted = list(ledger.read_counts_or_heads(count))
    found = {one.node: one for one in counted if not isinstance(one, NodeHead)}
    assert tuple(sorted(found)) == NODES
    assert tuple(sorted(n for n, one in found.items() if one.counts.reserved.count)) == holding
    _, queues = ledger.read_queues()
    assert {node for node, queue in queues.items() if queue} == {NODES[0]}
    hinted = ledger.find_job("7")
    assert set(hinted.nodes) == set(NODES)
    # Each node of the user's is hinted at, or said to be not indexed.
    assert set(ledger.find_user(job(7).uid or 0, 1).nodes) == set(NODES)
    usage = ledger.read_usage(1)
    assert tuple(one.node for one in usage.counted) == NODES
    assert all(ledger.history(node, 0.0) for node in NODES)


def test_nodes_lie_on_all_masters_and_are_read_together(cluster: RedisCluster) -> None:
    assert {cluster.master_of(node_keys(node).scan).id for node in NODES} == {
        one.id for one in cluster.masters
    }
    ledger = opened(cluster)
    fill(ledger)
    tell_the_same(ledger)
    # Another process, which asks another master first.
    tell_the_same(opened(cluster))


def test_a_node_whose_slot_moves_is_told_the_same(cluster: RedisCluster) -> None:
    ledger = opened(cluster)
    fill(ledger)
    moved = NODES[3]
    at_first = cluster.master_of(node_keys(moved).scan)
    target = next(one for one in cluster.masters if one is not at_first)
    cluster.move_slot_of(node_keys(moved).scan, target)
    # A client that knows the former place.
    tell_the_same(ledger)
    assert ledger.release(moved, job(7).owner, "end") == list(gpus(0))
    tell_the_same(ledger, tuple(node for node in NODES if node != moved))
    assert target.client.exists(node_keys(moved).scan)


def test_orders_reach_nodes_on_all_masters(cluster: RedisCluster) -> None:
    orders = OrderStore(StoreConfig(url=cluster.url, timeout_s=60.0), Role.WRITE)
    for number, node in enumerate(NODES):
        given = f"{number:032x}"
        orders.give(node, given, f"release on {node}")
        assert orders.look(node).has_order
        taken = orders.take(node, OrderReaderKind.AGENT)
        assert taken is not None
        assert (taken.id, taken.text) == (given, f"release on {node}")
        orders.answer(node, taken, '"done"')
        assert orders.progress(node, given).answer == '"done"'
        assert orders.take(node, OrderReaderKind.AGENT) is None
        assert orders.reader(node) is not None


def test_what_was_granted_is_so_after_a_failover(cluster: RedisCluster) -> None:
    ledger = opened(cluster)
    fill(ledger)
    own = [n for n in NODES if cluster.master_of(node_keys(n).scan) is cluster.masters[0]]
    cluster.fail_over()
    after = opened(cluster)
    tell_the_same(after)
    # Who was connected to the master that is gone may see an error once, and then goes on.
    for node in own:
        try:
            released = ledger.release(node, job(7).owner, "end")
        except StoreError:
            released = ledger.release(node, job(7).owner, "end")
        assert released in (list(gpus(0)), [])
    tell_the_same(after, tuple(node for node in NODES if node not in own))
