"""Where to look for a job or a user, and what others may make of that."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ledger_samples import (
    Observe,
    Store,
    gpus,
    job,
    manual,
    new_node_name,
    observation,
    run,
    store_time_ms,
    waiter,
)

from canhazgpu.gpu.scan import GpuProcess
from canhazgpu.ledger.journal_entries import JournalEntry, NumberedEntry
from canhazgpu.ledger.store.indexes import upkeep
from canhazgpu.ledger.store.keys import NodeKeys, jobs_index_key, owner_number, user_index_key
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.usage import DAY_MS
from canhazgpu.ledger.values import Claim


def today(store: Store) -> int:
    return store_time_ms(store.raw_client) // DAY_MS


def test_a_jobs_nodes_are_found(
    ledger: RedisLedger, observe: Observe, node: str, store: Store
) -> None:
    ledger.keep_indexes(node)
    ledger.reserve_given(job(4711), gpus(0), observe())
    ledger.release(node, job(4711).owner, "ended")
    found = ledger.find_job("4711")
    assert found.days[node] == {today(store)}
    assert [one.kind for one in ledger.history_on(node, found.days[node])] == ["grant", "release"]
    assert node not in ledger.find_job("4712").days


@pytest.mark.parametrize("claim", [run(71), manual(72)], ids=["run", "manual"])
def test_where_a_run_or_a_reservation_was_is_found(
    ledger: RedisLedger, node: str, store: Store, claim: Claim
) -> None:
    day = today(store)
    assert node not in ledger.find_owner(claim.owner).days
    ledger.reserve_given(claim, gpus(0), observation(node))
    assert ledger.find_owner(claim.owner).days[node] <= {day, day + 1}
    assert node not in ledger.find_owner(f"{claim.owner}0").days
    # The health check adds what was lost, also of one that is over.
    ledger.release(node, claim.owner, "done")
    days = (day, day + 1)
    told = [jobs_index_key(owner_number(claim.owner, one)) for one in days]
    for key in told:
        store.raw_client.delete(key)
    assert node not in ledger.find_owner(claim.owner).days
    ledger.keep_indexes(node)
    assert node in ledger.find_owner(claim.owner).days
    assert max(store.raw_client.ttl(one) for one in told) > 0


def test_runs_that_another_release_left_out_of_the_index_are_added(
    ledger: RedisLedger,
    node: str,
    store: Store,
    node_hashes: NodeKeys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A release that indexed jobs alone has moved on how far the history is in the indexes."""
    monkeypatch.setattr(upkeep, "ENTRIES_PER_CHECK", 3)
    owners = [run(number).owner for number in range(81, 84)]
    for number in range(81, 84):
        ledger.reserve_given(run(number), gpus(number - 81), observation(node))
        ledger.release(node, run(number).owner, "done")
    while node in ledger.find_user(1, 1).unindexed:
        ledger.keep_indexes(node)
    assert node not in ledger.find_owner(owners[0]).unindexed

    ((last, _),) = store.raw_client.xrevrange(node_hashes.history, count=1)
    for key in store.raw_client.scan_iter("canhazgpu:index:jobs:*"):
        store.raw_client.delete(key)
    store.raw_client.hset(node_hashes.usage, "through", last)
    store.raw_client.hdel(node_hashes.usage, "owners")
    store.raw_client.set(node_hashes.indexed, "1", ex=172_800)
    checks = 0
    while node in ledger.find_owner(owners[0]).unindexed:
        assert node not in ledger.find_job("1").unindexed
        # As when the last check is an hour ago.
        store.raw_client.set(node_hashes.indexed, "1", ex=100_000)
        ledger.keep_indexes(node)
        checks += 1
    assert checks == 2
    assert [node in ledger.find_owner(one).days for one in owners] == [True] * 3
    # What it tells later is in the index, until that release has checked again.
    ledger.reserve_given(run(85), gpus(3), observation(node))
    assert node not in ledger.find_owner(run(85).owner).unindexed
    ((last, _),) = store.raw_client.xrevrange(node_hashes.history, count=1)
    store.raw_client.hset(node_hashes.usage, "through", last)
    store.raw_client.set(node_hashes.indexed, "1", ex=172_800)
    assert node in ledger.find_owner(run(85).owner).unindexed


def test_who_waited_is_no_unknown_user(ledger: RedisLedger, node: str, store: Store) -> None:
    ledger.join_queue(node, waiter(run(5)))
    ledger.leave_queue(node, [run(5).owner], "gave up")
    ledger.keep_indexes(node)
    # Otherwise every person's question would read each node on which somebody has waited.
    assert not store.raw_client.sismember(user_index_key(-1, today(store)), node)
    assert node in ledger.find_user(waiter(run(5)).uid, 1).days


@pytest.mark.parametrize("how", ["grant", "note", "health", "journal"])
def test_whatever_tells_of_a_job_is_found(
    ledger: RedisLedger, observe: Observe, node: str, how: str
) -> None:
    claim = job(815)
    facts = {"jobs": [{"job_id": "815", "what": "gone"}]}
    entries = {
        "note": JournalEntry("prolog", 1.0, claim.owner, claim=claim, reason="refused"),
        "health": JournalEntry("health", 1.0, reason="noted", facts=facts),
        "journal": JournalEntry("grant", 1.0, claim.owner, gpus(1), claim),
    }
    if how == "grant":
        ledger.reserve_count(claim, 1, observe())
    else:
        ledger.record_entries(node, "token", [NumberedEntry(1, entries[how])])
    assert node in ledger.find_job("815").nodes


def test_a_users_nodes_are_found(ledger: RedisLedger, store: Store) -> None:
    holds, waits, uses, others = (new_node_name() for _ in range(4))
    uid = 90000 + int(holds.rpartition("-")[2])
    ledger.reserve_given(replace(run(1), uid=uid), gpus(0), observation(holds))
    ledger.join_queue(waits, replace(waiter(run(2)), uid=uid))
    seen = observation(uses)
    process = GpuProcess(1, uid, "ann", "python", 100)
    scan = replace(seen.scan, gpus=(replace(seen.scan.gpus[0], processes=(process,)),))
    ledger.publish_scan(replace(seen, scan=scan))
    ledger.reserve_given(manual(3), gpus(0), observation(others))
    for node in (holds, waits, uses, others):
        ledger.keep_indexes(node)
    found = ledger.find_user(uid, 1).nodes
    assert {holds, waits, uses} <= set(found)
    assert others not in found


def test_a_node_that_nobody_keeps_is_named(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.publish_scan(observe())
    assert node in ledger.find_user(1, 1).unindexed
    ledger.keep_indexes(node)
    assert node not in ledger.find_user(1, 1).unindexed
    assert node not in ledger.find_job("1").unindexed


def test_what_was_lost_is_added_again(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    held, ended = job(100001), job(200001)
    ledger.reserve_given(held, gpus(0), observe())
    ledger.reserve_given(ended, gpus(1), observe())
    ledger.release(node, ended.owner, "ended")
    for key in store.raw_client.scan_iter("canhazgpu:index:*"):
        store.raw_client.delete(key)
    assert node not in ledger.find_job("200001").days
    ledger.keep_indexes(node)
    for one in (held, ended):
        assert node in ledger.find_job(one.job_id or "").days
    assert node in ledger.find_user(1000, 1).days
    assert store.raw_client.ttl(jobs_index_key(100001)) > 90 * 86400
    assert 0 < store.raw_client.ttl(user_index_key(1000, today(store))) <= 9 * 86400


def test_an_earlier_releases_history_is_counted_once(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    for number in (1, 2):
        ledger.reserve_given(job(number), gpus(number), observe())
        ledger.release(node, job(number).owner, "ended")
    store.raw_client.delete(node_hashes.usage, node_hashes.indexed)  # as that release leaves it
    ledger.reserve_given(job(3), gpus(3), observe())
    ledger.release(node, job(3).owner, "ended")
    assert ledger.read_usage(0, [node]).uncounted == (node,)
    for _ in range(2):
        ledger.keep_indexes(node)
    (usage,) = ledger.read_usage(0, [node]).counted
    assert usage.total["ann\tjob"][2:] == [3, 3, 3, 3]


LONG = "b" * 2**20
GARBAGE = [
    "7", "7 ", "7  1", "7 ../x 1", f"7 a{LONG} 1", "7 n1 99999999", "7 \x1b[2J 1", "7 n1 -1",
    "7 n1 1e9", "\xff",
]  # fmt: skip


def test_garbage_in_an_index_is_skipped(
    ledger: RedisLedger, observe: Observe, node: str, store: Store
) -> None:
    ledger.reserve_given(job(7), gpus(0), observe())
    ledger.keep_indexes(node)
    store.raw_client.sadd(jobs_index_key(7), *GARBAGE)
    store.raw_client.sadd(user_index_key(1000, today(store)), *GARBAGE)
    assert "n1" not in ledger.find_job("7").days
    assert node in ledger.find_job("7").days
    assert node in ledger.find_user(1000, 1).days
    store.raw_client.delete(jobs_index_key(7))
    store.raw_client.set(jobs_index_key(7), "x")
    assert node not in ledger.find_job("7").days
    ledger.release(node, job(7).owner, "ended")  # a key of another type stops nothing
    store.raw_client.delete(jobs_index_key(7))
