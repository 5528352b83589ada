"""The first waiters that a node's counts list are those that the node's queue has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from ledger_samples import Store, manual, observation, run, uuid, waiter

from canhazgpu.cli.status_display.renderer import StatusRenderer
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.gpu.usage import GpuState, UsagePolicy
from canhazgpu.ledger.store.keys import NodeKeys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import NodeCounts, NodeView, Waiter
from canhazgpu.service.status import StatusAnswer
from canhazgpu.status.heads.counts import counted_by_counts
from canhazgpu.status.heads.free_gpus import free_node
from canhazgpu.status.node_status import node_status
from canhazgpu.status.status_filter import StatusFilter

POLICY = UsagePolicy(1024)


@pytest.fixture
def free_gpus(ledger: RedisLedger, node: str) -> None:
    """Three free GPUs, of which one is about to be released by somebody."""
    seen = observation(node)
    gpus = tuple(GpuReading(place, uuid(place), None, "H100", 45, 80000) for place in range(3))
    seen = replace(seen, scan=replace(seen.scan, gpus=gpus))
    ledger.reserve_given(manual(1), [uuid(2)], seen)
    ledger.publish_scan(seen)


def queue_lines(ledger: RedisLedger, node: str) -> tuple[str | None, str]:
    """The line of the queue by the counts, None where they list none, and by judgement."""
    (found,) = ledger.read_counts_or_heads(lambda one: one, [node])
    assert isinstance(found, NodeCounts)
    (view,) = ledger.read_nodes([node])
    judged = _last_line(StatusAnswer((node_status(_read_at(view, found), POLICY),)))
    counted = counted_by_counts(found, POLICY)
    listed = free_node(counted, found.content) if counted else None
    return (_last_line(StatusAnswer((), tables=(listed,))) if listed else None), judged


def _read_at(view: NodeView, found: NodeCounts) -> NodeView:
    return replace(view, read_at=found.read_at)


def _last_line(answer: StatusAnswer) -> str:
    renderer = StatusRenderer(filter=StatusFilter(frozenset({GpuState.AVAILABLE})))
    return renderer.lines(answer, None)[-1]


def told_by_counts(ledger: RedisLedger, node: str) -> str:
    by_counts, judged = queue_lines(ledger, node)
    assert by_counts == judged
    return judged


@pytest.mark.usefixtures("free_gpus")
def test_the_first_of_many_waiters_stand_in_the_order_of_the_queue(
    ledger: RedisLedger, node: str
) -> None:
    assert "waiting" not in told_by_counts(ledger, node)
    for number in (7, 3, 9, 1, 8, 2, 6):
        some = waiter(run(number), number)
        ledger.join_queue(node, replace(some, profile="1g.10gb" if number == 9 else ""))
    line = told_by_counts(ledger, node)
    assert line.startswith("7 waiting: ")
    assert [text.split()[1] for text in line.split(": ")[1].split(", ")] == [
        "7",
        "3",
        "9",
        "1",
        "8",
    ]
    assert "9 MIG instances 1g.10gb" in line
    assert line.endswith("and 2 more")
    ledger.leave_queue(node, [run(3).owner], "left")
    assert "2 GPUs" in told_by_counts(ledger, node)


@pytest.mark.usefixtures("free_gpus")
def test_a_waiter_who_wants_something_else_is_told_so(ledger: RedisLedger, node: str) -> None:
    ledger.join_queue(node, waiter(run(1), 2))
    assert "2 GPUs" in told_by_counts(ledger, node)
    ledger.join_queue(node, waiter(run(1), 3))
    assert "3 GPUs" in told_by_counts(ledger, node)
    ledger.join_queue(node, replace(waiter(run(1), 1), gpus=(uuid(1),)))
    by_counts, judged = queue_lines(ledger, node)
    assert by_counts is None
    assert "GPU 1 (" in judged


@pytest.mark.usefixtures("free_gpus")
def test_a_mirrored_queue_in_another_order_is_told_so(ledger: RedisLedger, node: str) -> None:
    waiters = [replace(waiter(run(number), number), since=1000.0 + number) for number in (1, 2, 3)]
    for some in (waiters, waiters[::-1], waiters[:2], [replace(waiters[0], count=8), waiters[1]]):
        ledger.mirror_queue(node, some, "left")
        assert _counts(told_by_counts(ledger, node)) == [one.count for one in some]


def _counts(line: str) -> Sequence[int]:
    return [int(text.split()[1]) for text in line.split(": ")[1].split(", ")]


@pytest.mark.usefixtures("free_gpus")
def test_a_heartbeat_writes_no_counts(
    ledger: RedisLedger, store: Store, node: str, node_hashes: NodeKeys
) -> None:
    some: list[Waiter] = [
        replace(waiter(run(1), 2), since=1000.0),
        replace(waiter(run(2)), since=1001.0, gpus=(uuid(1),)),
    ]
    ledger.mirror_queue(node, some, "left")
    store.raw_client.set(node_hashes.counts, "as it was")
    ledger.mirror_queue(node, some, "left")
    assert store.raw_client.get(node_hashes.counts) == "as it was"


@pytest.mark.usefixtures("free_gpus")
@pytest.mark.parametrize(
    "change",
    [
        {"count": 1e300},
        {"count": -1},
        {"count": 1.5},
        {"count": "2"},
        {"count": None},
        {"since_ms": "long ago"},
        {"since_ms": 1e300},
        {"user": None},
        {"user": "u" * 300},
        {"user": 'a"\\\x1b[31m'},
        {"user": "jürgen"},
        {"profile": 3},
        {"profile": "p" * 300},
        {"gpus": {"a": "b"}},
        {"gpus": []},
    ],
)
def test_a_waiter_of_any_content_is_told_as_it_is_stored(
    ledger: RedisLedger, store: Store, node: str, node_hashes: NodeKeys, change: dict[str, Any]
) -> None:
    ledger.join_queue(node, waiter(run(1), 2))
    (owner,) = store.raw_client.hkeys(node_hashes.queue)
    record = json.loads(store.raw_client.hget(node_hashes.queue, owner) or "")
    store.raw_client.hset(node_hashes.queue, owner, json.dumps({**record, **change}))
    ledger.join_queue(node, waiter(run(2), 3))
    by_counts, judged = queue_lines(ledger, node)
    assert by_counts in (None, judged)
    assert "2 waiting: " in judged


@pytest.mark.usefixtures("free_gpus")
@pytest.mark.parametrize(
    "damaged", ['"gpus":[1e999]', '"gpus":{"a":1e999}', '"since_ms":1e999', '"count":1e999']
)
def test_a_record_that_cannot_be_encoded_is_replaced(
    ledger: RedisLedger, store: Store, node: str, node_hashes: NodeKeys, damaged: str
) -> None:
    ledger.join_queue(node, waiter(run(1), 2))
    (owner,) = store.raw_client.hkeys(node_hashes.queue)
    text = store.raw_client.hget(node_hashes.queue, owner) or ""
    store.raw_client.hset(node_hashes.queue, owner, f"{text[:-1]},{damaged}}}")
    assert ledger.join_queue(node, waiter(run(1), 3)) == 1
    assert "1 waiting: ann 3 GPUs" in told_by_counts(ledger, node)
    store.raw_client.hset(node_hashes.queue, owner, f'{text[:-1]},{damaged},"mirrored":true}}')
    ledger.mirror_queue(node, [replace(waiter(run(1), 1), since=1000.0)], "left")
    assert "1 waiting: ann 1 GPU (" in told_by_counts(ledger, node)


@pytest.mark.usefixtures("free_gpus")
@pytest.mark.parametrize(
    "first", [None, [], ["ann", 1, ""], ["ann", 1, "", "1"], [1, 1, "", 1], ["ann", -1, "", 1]]
)
def test_counts_that_list_waiters_otherwise_are_not_used(
    ledger: RedisLedger, store: Store, node: str, node_hashes: NodeKeys, first: list[Any] | None
) -> None:
    ledger.join_queue(node, waiter(run(1), 2))
    told_by_counts(ledger, node)
    counts = json.loads(store.raw_client.get(node_hashes.counts) or "")
    store.raw_client.set(node_hashes.counts, json.dumps({**counts, "first": first}))
    by_counts, judged = queue_lines(ledger, node)
    assert by_counts is None
    assert "2 GPUs" in judged
