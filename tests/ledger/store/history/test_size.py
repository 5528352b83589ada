"""A node's history stays within its size, and who fills it in an hour removes that hour."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from ledger_samples import (
    Observe,
    Store,
    gpus,
    job,
    store_time_ms,
    uuid,
    wait_for_next_ms,
)

from canhazgpu.ledger.journal_entries import HEALTH, JournalEntry, NumberedEntry
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import NodeKeys
from canhazgpu.ledger.store.ledger import RedisLedger

pytestmark = pytest.mark.parametrize("store", ["system"], indirect=True)
DAY_MS = 86_400_000
MB = 1024 * 1024
GROWING = ("xrange", "xrevrange", "xtrim", "xlen", "hgetall", "hkeys", "hset", "hincrby", "hlen")


@pytest.fixture
def small(store: Store) -> Iterator[RedisLedger]:
    """A ledger that keeps 1 MB of each node's history."""
    yield RedisLedger(replace(store.config, history_max_mb=1), Role.WRITE)


def write_notes(ledger: RedisLedger, node: str, count: int, size: int = 1000) -> None:
    note = JournalEntry(HEALTH, time.time(), reason="x" * size)
    ledger.record_entries(node, "", [NumberedEntry(one, note) for one in range(count)])


def calls(store: Store) -> dict[str, int]:
    """How often the store did what may depend on the history's length."""
    stats = store.raw_client.info("commandstats")
    return {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in GROWING}


@pytest.mark.slow
def test_a_history_stays_within_its_size(
    small: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    small.reserve_count(job(1), 1, observe())
    for _ in range(8):
        write_notes(small, node, 250)
        assert store.raw_client.memory_usage(node_hashes.history, samples=0) < 1.2 * MB
    told = small.history(node, 0)
    assert 650 < len(told) < 900
    assert store.raw_client.memory_usage(node_hashes.history_meta, samples=0) < 4096


def test_a_reason_that_is_far_too_long_is_cut(
    small: RedisLedger, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    note = JournalEntry(HEALTH, time.time(), reason="\N{EURO SIGN}" * 2**20)
    small.record_entries(node, "", [NumberedEntry(1, note)])
    assert store.raw_client.memory_usage(node_hashes.history, samples=0) < 10_000
    (event,) = small.history(node, 0)
    assert event.reason == "\N{EURO SIGN}" * 1333 + " ..."


def test_who_fills_the_history_in_an_hour_removes_no_ones_days(
    small: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    """62 portions, each written in a day; then a dozen more at once."""
    client, marks = store.raw_client, []
    first = store_time_ms(client) - 63 * DAY_MS
    for day in range(62):
        began = f"{first + (day - 1) * DAY_MS + 1}-0"
        client.xadd(node_hashes.history, {"2": "h", "r": "began"}, id=began)
        marks.append(f"{first + day * DAY_MS}-0")
        client.xadd(node_hashes.history, {"2": "h", "r": f"day {day}"}, id=marks[-1])
    client.hset(node_hashes.history_meta, "marks", " ".join(marks))

    for _ in range(10):
        write_notes(small, node, 20)
        wait_for_next_ms()

    told = small.history(node, 0)
    days = [one.reason for one in told if one.reason.startswith("day")]
    # Those of the flood that have to stay took the place of so many others.
    assert days == [f"day {day}" for day in range(3, 62)]
    flood = sum(one.reason.startswith("x") for one in told)
    # The latest portions of the flood are there.
    assert 3 * 12 <= flood < 80
    known = client.hget(node_hashes.history_meta, "marks").split()
    assert len(known) < 64 and known[:59] == marks[3:]


@pytest.mark.slow
def test_the_oldest_goes_where_all_was_written_at_one_pace(
    small: RedisLedger, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    client, marks = store.raw_client.pipeline(transaction=False), []
    first = store_time_ms(store.raw_client) - 63 * DAY_MS
    for day in range(63):
        # A node of the stream's tree holds a hundred: trimming is by whole ones.
        for number in range(100):
            marks.append(f"{first + day * DAY_MS + number}-0")
            client.xadd(node_hashes.history, {"2": "h", "r": f"{day}"}, id=marks[-1])
    marks = marks[99::100]
    client.hset(node_hashes.history_meta, "marks", " ".join(marks))
    client.execute()
    write_notes(small, node, 20)
    days = {one.reason for one in small.history(node, 0)}
    assert "0" not in days and {"2", "30", "62"} <= days


def test_a_change_costs_the_same_however_long_the_history_is(
    small: RedisLedger, observe: Observe, node: str, store: Store
) -> None:
    def cost() -> dict[str, int]:
        before = calls(store)
        # A second entry in one millisecond is tried twice.
        wait_for_next_ms()
        small.reserve_given(job(1), gpus(0, 1), observe())
        wait_for_next_ms()
        small.release(node, job(1).owner, "end")
        return {name: count - before.get(name, 0) for name, count in calls(store).items()}

    cost()
    short = cost()
    write_notes(small, node, 100, size=1)
    assert cost() == short


def test_when_gpus_were_released_that_are_gone_for_long_is_forgotten(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    now = store_time_ms(store.raw_client)
    released = {uuid(0): now - 99 * DAY_MS, "MIG-old": now - 8 * DAY_MS, "MIG-new": now - DAY_MS}
    released["GPU-absent"] = now - 99 * DAY_MS
    store.raw_client.hset(node_hashes.released, mapping=released)
    store.raw_client.hset(node_hashes.released_by, mapping=dict.fromkeys(released, "ann"))
    # A GPU that fell off the bus is still one of the node's.
    most = '{"GPU-absent":7,"GPU-0":0,"GPU-1":1,"GPU-2":2,"GPU-3":3}'
    store.raw_client.hset(node_hashes.scan, mapping={"at": now - 1000, "most": most})
    ledger.publish_scan(observe())
    kept = {uuid(0), "MIG-new", "GPU-absent"}
    assert set(store.raw_client.hkeys(node_hashes.released)) == kept
    assert set(store.raw_client.hkeys(node_hashes.released_by)) == kept


def test_names_that_only_lost_entries_have_are_forgotten(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    today = store_time_ms(store.raw_client) // DAY_MS
    old = {f"gpu:MIG-{one}": f"{one} {today - 92} " for one in range(1, 70)}
    store.raw_client.hset(node_hashes.history_meta, mapping={**old, "next": 70, "cluster": "c1"})
    ledger.reserve_given(job(1), gpus(0), observe())
    names = store.raw_client.hgetall(node_hashes.history_meta)
    assert not names.keys() & old.keys()
    assert names[f"gpu:{uuid(0)}"].split()[0] == "71" or names["user:1000 ann"].split()[0] == "71"
    many = {f"user:{one} u": f"{one} {today} " for one in range(100, 700)}
    store.raw_client.hset(node_hashes.history_meta, mapping=many)
    ledger.reserve_given(replace(job(2), user="eve"), gpus(1), observe())
    told = ledger.history(node, 0)[-1]
    assert (told.gpu, told.claim and told.claim.user) == (uuid(1), "eve")
    assert len(store.raw_client.hgetall(node_hashes.history_meta)) < 620
