"""A head and counts of any content end nobody's reading: the node is judged."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from ledger_samples import Store, job, manual, observation, run, uuid, wait_for_next_ms, waiter

from canhazgpu.gpu.scan import GpuProcess, GpuReading
from canhazgpu.gpu.usage import GpuState, UsagePolicy
from canhazgpu.ledger.store.keys import NodeKeys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import NodeCounts, NodeHead
from canhazgpu.status.heads.chosen_counts import ChosenCounts
from canhazgpu.status.heads.counts import counted_by_counts, counted_node
from canhazgpu.status.heads.free_gpus import free_node
from canhazgpu.status.heads.json_text import PlainNodesJson
from canhazgpu.status.heads.node_table import PlainNodesTable
from canhazgpu.status.status_filter import StatusFilter

pytestmark = pytest.mark.parametrize("store", ["system"], indirect=True)
POLICY = UsagePolicy(1024)
BAD = [
    *(10**400, -(10**400), float("inf"), float("-inf"), float("nan"), 1e300, -1, 0, 1.5),
    *(None, True, "", "x", "1e999", "9" * 400, [], {}, [1e999], {"a": 1}, [["x"]], "\ud800"),
]


def ordinary_node(ledger: RedisLedger, node: str) -> None:
    """A GPU that a job uses, one that somebody holds for a time, one that is free, and a waiter."""
    process = GpuProcess(7, 1000, "ann", "python3", 5000, model="llama", job="job:1")
    readings = [
        GpuReading(place, uuid(place), None, "H100", 9000 if used else 45, 80000, used)
        for place, used in enumerate([(process,), (), ()])
    ]
    free = [replace(one, processes=(), memory_used_mb=45) for one in readings]
    seen = observation(node)
    before = replace(seen, scan=replace(seen.scan, gpus=tuple(free)))
    ledger.reserve_given(replace(job(1), ends_at=4e9), [uuid(0)], before)
    ledger.reserve_given(manual(2), [uuid(1), uuid(2)], before)
    ledger.release(node, manual(2).owner, "done", [uuid(2)])
    ledger.join_queue(node, waiter(run(1)))
    wait_for_next_ms()
    used = replace(seen, scan=replace(seen.scan, gpus=tuple(readings)), partitions=("gpu",))
    ledger.publish_scan(used)


def damaged(value: Any) -> Iterator[Any]:
    """The value with something bad in each of its places, one after the other."""
    for bad in BAD:
        for path in list(_paths(value)):
            changed = copy.deepcopy(value)
            place = changed
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = bad
            yield changed


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict | list):
        for step in value if isinstance(value, dict) else range(len(value)):
            yield from _paths(value[step], (*path, step))


def test_a_damaged_head_is_judged(ledger: RedisLedger, node: str) -> None:
    ordinary_node(ledger, node)
    (head,) = ledger.read_node_heads([node])
    tables = [PlainNodesTable(POLICY, wide=wide) for wide in (False, True)]
    texts = PlainNodesJson(POLICY)
    counts = ChosenCounts(POLICY, StatusFilter(models=("llama",)))
    writers = [*(one.table for one in tables), texts.text, counts.counted]

    def tell(some: NodeHead) -> list[Any]:
        return [counted_node(some, POLICY), *(write(some) for write in writers)]

    assert None not in tell(head)
    for content in damaged(head.content):
        for told in tell(replace(head, content=content)):
            # What is told all the same is JSON, and lines of text.
            if hasattr(told, "json"):
                json.loads(told.json)
    for queue in damaged({owner: json.loads(text) for owner, text in (head.queue or {}).items()}):
        tell(replace(head, queue={owner: json.dumps(one) for owner, one in queue.items()}))


def test_damaged_counts_are_judged(ledger: RedisLedger, node: str) -> None:
    ordinary_node(ledger, node)
    (found,) = ledger.read_counts_or_heads(lambda one: one, [node])
    assert isinstance(found, NodeCounts)
    counted = counted_by_counts(found, POLICY)
    assert counted is not None
    assert free_node(counted, found.content) is not None
    for content in damaged(found.content):
        one = counted_by_counts(replace(found, content=content), POLICY)
        if one is not None:
            free_node(one, content)


def test_a_claim_of_several_without_its_holders_is_judged(
    ledger: RedisLedger, store: Store, node: str, node_hashes: NodeKeys
) -> None:
    ordinary_node(ledger, node)
    record = json.loads(store.raw_client.hget(node_hashes.reservations, uuid(0)) or "")
    text = json.dumps({**record, "owner": "shared"})
    store.raw_client.hset(node_hashes.reservations, uuid(0), text)
    ledger.quarantine(node, uuid(2), "hot", "root")
    ledger.unquarantine(node, uuid(2), "root")
    assert not isinstance(*ledger.read_counts_or_heads(lambda one: one, [node]), NodeCounts)
    (head,) = ledger.read_node_heads([node])
    assert PlainNodesTable(POLICY, StatusFilter(frozenset({GpuState.RESERVED}))).table(head) is None
