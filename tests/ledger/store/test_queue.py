"""The queue: first come, first served, and nobody dead in the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from ledger_samples import (
    Observe,
    Store,
    gpus,
    job,
    manual,
    patch_record,
    run,
    store_time_ms,
    uuid,
    view,
    wait_for_next_ms,
    waiter,
)

from canhazgpu.errors import InputError
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus, QueuePosition, TooFewGpus
from canhazgpu.ledger.port import GrantOptions
from canhazgpu.ledger.store.keys import NodeKeys
from canhazgpu.ledger.store.ledger import RedisLedger

QUEUES = GrantOptions(queues=True)


def owners(ledger: RedisLedger, node: str) -> list[str]:
    return [one.owner for one in view(ledger, node).queue]


@pytest.fixture
def die(store: Store, node_hashes: NodeKeys) -> Callable[[int], None]:
    """Let a run's last sign of life be as long ago as its lease lasts."""

    def end(number: int) -> None:
        long_ago = store_time_ms(store.raw_client) - 60_001
        patch_record(store.raw_client, node_hashes.queue, run(number).owner, renewed_ms=long_ago)

    return end


def test_waiters_stand_in_the_order_of_their_coming(ledger: RedisLedger, node: str) -> None:
    assert [ledger.join_queue(node, waiter(run(one))) for one in (3, 1, 2)] == [1, 2, 3]
    assert owners(ledger, node) == ["run:3", "run:1", "run:2"]
    # Signs of life change nothing.
    assert [ledger.join_queue(node, waiter(run(one))) for one in (1, 2, 3)] == [2, 3, 1]
    assert owners(ledger, node) == ["run:3", "run:1", "run:2"]


def test_a_waiter_is_shown_as_it_came(ledger: RedisLedger, node: str) -> None:
    given = replace(waiter(run(1), count=2, lease_s=12.5), gpus=gpus(1, 3))
    ledger.join_queue(node, given)
    first = view(ledger, node).queue[0]
    assert replace(first, since=0.0, renewed_at=0.0) == given
    assert first.since == first.renewed_at
    wait_for_next_ms()
    ledger.join_queue(node, given)
    again = view(ledger, node).queue[0]
    assert again.since == first.since
    assert again.renewed_at > first.renewed_at


def test_a_waiter_may_change_its_mind_and_keep_its_place(ledger: RedisLedger, node: str) -> None:
    ledger.join_queue(node, waiter(run(1), count=4))
    ledger.join_queue(node, waiter(run(2)))
    assert ledger.join_queue(node, waiter(run(1), count=2)) == 1
    assert [one.count for one in view(ledger, node).queue] == [2, 1]


def test_only_the_head_is_granted(ledger: RedisLedger, observe: Observe, node: str) -> None:
    for number in (1, 2):
        ledger.join_queue(node, waiter(run(number)))
    assert ledger.reserve_count(run(2), 1, observe(), QUEUES) == QueuePosition(2)
    assert ledger.reserve_given(run(2), gpus(0), observe(), QUEUES) == QueuePosition(2)
    # A newcomer would be the third.
    assert ledger.reserve_count(run(3), 1, observe(), QUEUES) == QueuePosition(3)
    assert ledger.reserve_given(run(3), gpus(0), observe(), QUEUES) == QueuePosition(3)
    assert owners(ledger, node) == ["run:1", "run:2"]
    assert ledger.reserve_count(run(1), 1, observe(), QUEUES) == GrantedGpus(gpus(0))
    assert owners(ledger, node) == ["run:2"]
    assert ledger.reserve_given(run(2), gpus(3), observe(), QUEUES) == GrantedGpus(gpus(3))
    assert owners(ledger, node) == []
    assert ledger.reserve_count(run(3), 1, observe(), QUEUES) == GrantedGpus(gpus(1))


def test_a_small_request_does_not_pass_a_large_one(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_count(job(1), 1, observe())
    ledger.join_queue(node, waiter(run(1), count=4))
    assert ledger.reserve_count(run(1), 4, observe(), QUEUES) == TooFewGpus(4, 3, 1, 0, 0, 0)
    assert ledger.reserve_count(run(2), 1, observe(), QUEUES) == QueuePosition(2)
    assert owners(ledger, node) == ["run:1"]
    blocked = ledger.reserve_given(run(1), gpus(0), observe(), QUEUES)
    assert isinstance(blocked, BlockedGpu)


def test_a_job_does_not_queue(ledger: RedisLedger, observe: Observe, node: str) -> None:
    ledger.join_queue(node, waiter(run(1)))
    assert ledger.reserve_count(job(1), 1, observe()) == GrantedGpus(gpus(0))
    assert ledger.reserve_given(job(2), gpus(2), observe()) == GrantedGpus(gpus(2))
    assert owners(ledger, node) == ["run:1"]


def test_a_grant_takes_the_owner_out_whatever_its_terms(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    for number in (1, 2, 3):
        ledger.join_queue(node, waiter(run(number)))
    ledger.reserve_count(run(2), 1, observe())
    assert owners(ledger, node) == ["run:1", "run:3"]
    ledger.reserve_given(run(3), gpus(3), observe())
    assert owners(ledger, node) == ["run:1"]


@pytest.mark.parametrize("named", [False, True])
def test_who_holds_gpus_already_is_told_so_and_waits_no_more(
    ledger: RedisLedger, observe: Observe, node: str, named: bool
) -> None:
    """The answer to the grant was lost, say."""
    ledger.reserve_count(run(2), 1, observe())
    ledger.join_queue(node, waiter(run(1)))
    ledger.join_queue(node, waiter(run(2)))
    if named:
        answer = ledger.reserve_given(run(2), gpus(0), observe(), QUEUES)
    else:
        answer = ledger.reserve_count(run(2), 1, observe(), QUEUES)
    assert answer == GrantedGpus(gpus(0), repeated=True)
    assert owners(ledger, node) == ["run:1"]


def test_more_gpus_wait_for_their_turn(ledger: RedisLedger, observe: Observe, node: str) -> None:
    ledger.reserve_given(run(2), gpus(0), observe())
    ledger.join_queue(node, waiter(run(1)))
    assert ledger.reserve_given(run(2), gpus(0, 1), observe(), QUEUES) == QueuePosition(2)


def test_an_answer_that_one_must_wait_publishes_the_scan_too(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.join_queue(node, waiter(run(1)))
    seen = observe(3, unhealthy={2: "Xid 79"})
    assert ledger.reserve_count(run(2), 1, seen, QUEUES) == QueuePosition(2)
    found = view(ledger, node)
    assert found.scan == seen.scan
    assert set(found.quarantines) == {uuid(2)}
    assert node in [one.node for one in ledger.read_nodes()]


@pytest.mark.parametrize("wanted", [2, 5])
def test_a_short_answer_lists_the_node(
    ledger: RedisLedger, observe: Observe, node: str, wanted: int
) -> None:
    assert isinstance(ledger.reserve_count(run(1), wanted, observe(1), QUEUES), TooFewGpus)
    assert node in [one.node for one in ledger.read_nodes()]


def test_who_leaves_is_out_and_the_others_move_up(ledger: RedisLedger, node: str) -> None:
    for number in (1, 2, 3, 4):
        ledger.join_queue(node, waiter(run(number)))
    ledger.leave_queue(node, [run(1).owner, run(3).owner, "run:404"], "gave up")
    assert owners(ledger, node) == ["run:2", "run:4"]
    ledger.leave_queue(node, [run(1).owner, run(3).owner], "gave up")
    ledger.leave_queue(node, [], "nobody")
    left = [one for one in ledger.history(node, 0) if one.kind == "leave"]
    assert [(one.claim.owner, one.reason) for one in left if one.claim] == [
        ("run:1", "gave up"),
        ("run:3", "gave up"),
    ]
    # Who comes again is last.
    assert ledger.join_queue(node, waiter(run(1))) == 3


def test_the_dead_are_not_shown(ledger: RedisLedger, node: str, die: Callable[[int], None]) -> None:
    for number in (1, 2):
        ledger.join_queue(node, waiter(run(number)))
    die(1)
    assert owners(ledger, node) == ["run:2"]


@pytest.mark.parametrize("how", ["reserve_count", "reserve_given", "wait_turn", "leave_queue"])
def test_the_dead_are_dropped_by_whoever_looks(
    ledger: RedisLedger, observe: Observe, node: str, die: Callable[[int], None], how: str
) -> None:
    for number in (1, 2, 3):
        ledger.join_queue(node, waiter(run(number)))
    die(1)
    if how == "reserve_count":
        assert ledger.reserve_count(run(2), 1, observe(), QUEUES) == GrantedGpus(gpus(0))
    elif how == "reserve_given":
        assert ledger.reserve_given(run(2), gpus(1), observe(), QUEUES) == GrantedGpus(gpus(1))
    elif how == "wait_turn":
        assert ledger.join_queue(node, waiter(run(3))) == 2
    else:
        ledger.leave_queue(node, [run(2).owner], "gave up")
    told = [one for one in ledger.history(node, 0) if one.kind == "leave" and one.claim]
    assert next((one.claim.owner, one.reason) for one in told if one.claim) == (
        "run:1",
        "no sign of life",
    )
    # Back from the dead, it is the last.
    assert ledger.join_queue(node, waiter(run(1))) == len(owners(ledger, node))


def test_a_sign_of_life_keeps_the_place(
    ledger: RedisLedger, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    for number in (1, 2):
        ledger.join_queue(node, waiter(run(number)))
    almost = store_time_ms(store.raw_client) - 55_000
    patch_record(store.raw_client, node_hashes.queue, run(1).owner, renewed_ms=almost)
    assert ledger.join_queue(node, waiter(run(1))) == 1
    assert view(ledger, node).queue[0].renewed_at > almost / 1000 + 50


@pytest.mark.parametrize(
    "record",
    ["", "[]", "7", "null", '{"order": 0}', '{"order":0,"renewed_ms":9e15,"lease_s":"x"}', b"\xff"],
)
def test_a_waiter_that_cannot_be_read_is_in_nobodys_way(
    ledger: RedisLedger,
    observe: Observe,
    store: Store,
    node: str,
    node_hashes: NodeKeys,
    record: str | bytes,
) -> None:
    store.raw_client.hset(node_hashes.queue, "run:odd", record)
    assert owners(ledger, node) == []
    assert ledger.reserve_count(run(1), 1, observe(), QUEUES) == GrantedGpus(gpus(0))
    assert store.raw_client.hlen(node_hashes.queue) == 0
    (left,) = [one for one in ledger.history(node, 0) if one.kind == "leave"]
    assert left.claim is not None
    assert left.claim.owner == "run:odd"


def test_details_of_a_waiter_that_are_none_are_left_out(
    ledger: RedisLedger, store: Store, node: str, node_hashes: NodeKeys
) -> None:
    ledger.join_queue(node, waiter(run(1)))
    odd = {"user": 7, "uid": "x", "count": [], "gpus": {}, "processes": 3, "since_ms": "x"}
    patch_record(store.raw_client, node_hashes.queue, run(1).owner, **odd)
    (seen,) = view(ledger, node).queue
    assert (seen.owner, seen.user, seen.uid, seen.count, seen.gpus) == (
        "run:1",
        "unknown",
        None,
        0,
        (),
    )
    ledger.leave_queue(node, [run(1).owner], "gave up")


@pytest.mark.parametrize("lease_s", [0, -1, math.nan, math.inf])
def test_a_lease_is_a_duration(ledger: RedisLedger, node: str, lease_s: float) -> None:
    with pytest.raises(InputError, match="no duration"):
        ledger.join_queue(node, waiter(run(1), lease_s=lease_s))
    assert owners(ledger, node) == []


def test_a_persons_reservation_queues_with_the_runs(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.join_queue(node, waiter(manual(1)))
    assert ledger.reserve_count(run(1), 1, observe(), QUEUES) == QueuePosition(2)
    assert ledger.reserve_count(manual(1), 1, observe(), QUEUES) == GrantedGpus(gpus(0))


def test_the_queues_of_two_nodes_have_nothing_in_common(ledger: RedisLedger, node: str) -> None:
    assert ledger.join_queue(node, waiter(run(1))) == 1
    assert ledger.join_queue(f"{node}-b", waiter(run(2))) == 1


def test_a_forgotten_node_has_no_queue(ledger: RedisLedger, node: str) -> None:
    ledger.join_queue(node, waiter(run(1)))
    assert ledger.forget_node(node) is True
    assert owners(ledger, node) == []
    assert ledger.history(node, 0) == []
