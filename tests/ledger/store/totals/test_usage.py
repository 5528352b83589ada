"""What a node has used: counted by the scripts as its history tells it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from ledger_samples import (
    Observe,
    Store,
    gpus,
    job,
    manual,
    patch_record,
    run,
    share,
    store_time_ms,
    uuid,
)

from canhazgpu.ledger.release_reasons import GAVE_UP
from canhazgpu.ledger.store.keys import NodeKeys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.usage import DAY_MS, usage_by_day


def since(ledger: RedisLedger, node: str, first_day: int) -> dict[str, list[int]]:
    """What was used from a day on: the difference of the node's totals."""
    today = ledger.read_usage(0, [node]).first_day
    (usage,) = ledger.read_usage(today - first_day, [node]).counted
    return {
        key: [
            all_of - before
            for all_of, before in zip(sums, usage.before.get(key, [0] * 6), strict=True)
        ]
        for key, sums in usage.total.items()
    }


def told(ledger: RedisLedger, node: str, days: Iterable[int]) -> dict[str, list[int]]:
    """The same from the history."""
    by_day, found = usage_by_day(ledger.history(node, 0)), {}
    for day in days:
        for key, amounts in by_day.get(day, {}).items():
            found[key] = [a + b for a, b in zip(found.get(key, [0] * 6), amounts, strict=True)]
    return found


def today(store: Store) -> int:
    return store_time_ms(store.raw_client) // DAY_MS


def began(store: Store, hashes: NodeKeys, index: int, days_ago: float, **more: Any) -> None:
    """Let a reservation be as old as that."""
    at = store_time_ms(store.raw_client) - int(days_ago * DAY_MS)
    patch_record(store.raw_client, hashes.reservations, uuid(index), granted_ms=at, **more)


def remember(store: Store, hashes: NodeKeys, days_ago: int) -> None:
    """Let the node have counted since then, and nothing in all that time."""
    store.raw_client.hset(hashes.usage, mapping={"day": today(store) - days_ago, "from": "0-0"})


def test_a_holding_counts_when_it_ends(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    ledger.reserve_given(job(1), gpus(0, 1), observe())
    began(store, node_hashes, 0, 0.0, idle_ms=0)
    assert since(ledger, node, today(store)) == {}
    ledger.release(node, job(1).owner, "ended", [uuid(0)])
    (sums,) = since(ledger, node, today(store)).values()
    assert sums[2:] == [0, 0, 0, 0]
    ledger.release(node, job(1).owner, "ended")
    (sums,) = since(ledger, node, today(store)).values()
    assert sums[2:] == [1, 1, 1, 1]


def test_each_day_has_its_part(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    remember(store, node_hashes, 5)
    ledger.reserve_given(job(1), gpus(0), observe())
    ledger.reserve_given(share(2, user="bob"), gpus(1), observe())
    ledger.reserve_given(replace(job(3), follows=True), gpus(2), observe())
    began(store, node_hashes, 0, 3.25, idle_ms=DAY_MS)
    began(store, node_hashes, 1, 1.5)
    began(store, node_hashes, 2, 0.0)
    for number in (1, 2, 3):
        ledger.release(node, f"job:c1:{number}:0", "ended")
    now = today(store)
    for first in range(now - 6, now + 2):
        found = since(ledger, node, first)
        expected = told(ledger, node, range(first, now + 1))
        assert {key: sums for key, sums in found.items() if any(sums)}.keys() == expected.keys()
        for key, sums in expected.items():
            # The two round a part of a millisecond, each day.
            assert found[key] == pytest.approx(sums, abs=5)


def test_what_nobody_used_is_not_counted(
    ledger: RedisLedger, observe: Observe, node: str, store: Store
) -> None:
    ledger.reserve_given(job(1), gpus(0), observe())
    ledger.release(node, job(1).owner, GAVE_UP)
    assert since(ledger, node, today(store)) == {}


def test_present_holdings_are_published(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    ledger.reserve_given(job(1), gpus(0, 1), observe())
    ledger.reserve_given(share(2, user="bob"), gpus(2), observe())
    ledger.reserve_given(manual(3, duration_s=60), gpus(3), observe())
    (usage,) = ledger.read_usage(0, [node]).counted
    found = {one[0]: one for one in usage.held}
    idle_ms = found["ann\tjob"].pop(3)
    assert (idle_ms >= 0, found["ann\tjob"][2:]) == (True, [2, 1, 1, 0])
    assert found["bob\tjob"][2] == 0.25
    assert found["ann\tmanual"][-1] - found["ann\tmanual"][1] == 60000
    ledger.release(node, job(1).owner, "ended")
    (usage,) = ledger.read_usage(0, [node]).counted
    assert "ann\tjob" not in {one[0] for one in usage.held}


def test_who_has_used_nothing_for_long_is_forgotten(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    kept, now = 91, today(store)
    old, active = {"zoe\trun": [9, 0, 1, 1, 1, 1]}, {"ann\trun": [8, 0, 1, 1, 1, 1]}
    days = {str(now - ago): json.dumps(old) for ago in range(1, kept + 5)}
    total = json.dumps(old | active)
    known = {**days, "total": total, "day": now - 1, "from": "0-0", str(now - 1): total}
    store.raw_client.hset(node_hashes.usage, mapping=known)
    ledger.publish_scan(observe())
    kept_days = sorted(
        int(one) for one in store.raw_client.hkeys(node_hashes.usage) if one.isdecimal()
    )
    assert (kept_days[0], kept_days[-1]) == (now - kept, now - 1)
    assert since(ledger, node, now - 90) == active


@pytest.mark.parametrize("days_ago", [1, 2])
def test_what_was_used_on_the_first_day_is_kept(
    ledger: RedisLedger,
    observe: Observe,
    node: str,
    store: Store,
    node_hashes: NodeKeys,
    days_ago: int,
) -> None:
    total, now = {"ann\trun": [8, 0, 1, 1, 1, 1]}, today(store)
    known = {"total": json.dumps(total), "day": now - days_ago, "from": "0-0"}
    store.raw_client.hset(node_hashes.usage, mapping=known)
    ledger.publish_scan(observe())
    assert since(ledger, node, now - days_ago) == total
    assert since(ledger, node, now) == {"ann\trun": [0] * 6}


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"a": 1}', '{"ann\\trun": "x"}', "\x00"])
def test_a_field_of_another_program_stops_no_script(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys, text: str
) -> None:
    remember(store, node_hashes, 2)
    store.raw_client.hset(node_hashes.usage, mapping={"total": text, "held": text, "day": text})
    ledger.reserve_given(run(1), gpus(0), observe())
    began(store, node_hashes, 0, 1.5)
    assert ledger.release(node, run(1).owner, "ended") == [uuid(0)]
    ledger.read_usage(0, [node])
