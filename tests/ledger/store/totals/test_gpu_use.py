"""What owners made of their GPUs: counted by the scripts as the epilogs' notes tell it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from ledger_samples import Observe, Store, gpus, job, share, store_time_ms, uuid

from canhazgpu.ledger.gpu_use import held_use, use_by_day
from canhazgpu.ledger.journal_entries import EPILOG, PROLOG, JournalEntry, NumberedEntry
from canhazgpu.ledger.store.keys import NodeKeys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.usage import DAY_MS, DAY_S
from canhazgpu.ledger.values import Claim
from canhazgpu.report.held_time import TimeSpan
from canhazgpu.report.node_rows import used_on_node

HOUR_MS = 3600_000
ROWS = [["0", 40_000, 80_000, 80], ["1", None, 80_000, None]]


def use(held_ms: Any, rows: Any = ROWS, idle_ms: Any = 0) -> dict[str, Any]:
    return {"use": {"driver": rows, "held_ms": held_ms, "idle_ms": idle_ms}}


def note(
    ledger: RedisLedger,
    node: str,
    number: int,
    facts: dict[str, Any],
    claim: Claim | None = None,
    kind: str = EPILOG,
) -> None:
    """Tell of the end of a job, as the node's journal does; a number counts once."""
    claim = claim or job(number)
    entry = JournalEntry(kind, time.time() + 60, claim.owner, claim=claim, facts=facts)
    ledger.record_entries(node, "journal", [NumberedEntry(number, entry)])


def since(ledger: RedisLedger, node: str, first_day: int) -> dict[str, list[float]]:
    """What the report reads of the use from a day on."""
    today = ledger.read_usage(0, [node]).first_day
    (usage,) = ledger.read_usage(today - first_day, [node]).counted
    found = used_on_node(usage, TimeSpan(first_day * DAY_S, time.time()))
    assert found is not None
    return {key: sums for key, *sums in found.uses}


def told(ledger: RedisLedger, node: str, days: Iterable[int]) -> dict[str, list[int]]:
    """The same from the history."""
    by_day, found = use_by_day(ledger.history(node, 0)), {}
    for day in days:
        for key, sums in by_day.get(day, {}).items():
            found[key] = [a + b for a, b in zip(found.get(key, [0] * 6), sums, strict=True)]
    return {key: [*sums[:3], *sums[4:]] for key, sums in found.items()}


def today(store: Store) -> int:
    return store_time_ms(store.raw_client) // DAY_MS


def test_a_jobs_use_is_counted_once(
    ledger: RedisLedger, observe: Observe, node: str, store: Store
) -> None:
    ledger.publish_scan(observe())
    for _ in range(2):
        note(ledger, node, 1, use(30_000, idle_ms=9_000))
    ((key, sums),) = since(ledger, node, today(store) - 1).items()
    assert key == "ann\tjob"
    # At midnight a job's amounts are those of two days, each in whole milliseconds.
    exact = [60_000, 24_000, 9_000, 60_000, 15_000]
    assert [max(one, there - 1) for one, there in zip(sums, exact, strict=True)] == sums
    assert [min(one, there) for one, there in zip(sums, exact, strict=True)] == sums


def test_a_note_that_the_store_hears_first_of_all_is_counted_once(
    ledger: RedisLedger, observe: Observe, node: str, store: Store
) -> None:
    """As after a store lost everything; the node's check takes over what was told before."""
    note(ledger, node, 1, use(30_000))
    ledger.publish_scan(observe())
    ledger.keep_indexes(node)
    note(ledger, node, 2, use(30_000))
    ((_, sums),) = since(ledger, node, today(store) - 1).items()
    assert sums[0] == 120_000


def test_each_day_has_its_part(
    ledger: RedisLedger, observe: Observe, node: str, store: Store
) -> None:
    ledger.publish_scan(observe())
    note(ledger, node, 1, use(int(3.25 * DAY_MS), idle_ms=DAY_MS))
    note(ledger, node, 2, use(int(1.5 * DAY_MS)), replace(job(2), user="bob"))
    note(ledger, node, 3, use(0))
    now = today(store)
    for first in range(now - 5, now + 2):
        expected = told(ledger, node, range(first, now + 1))
        found = since(ledger, node, first)
        assert found.keys() == expected.keys()
        for key, sums in expected.items():
            assert found[key] == pytest.approx(sums, abs=10)


def test_only_what_an_epilog_says_by_the_driver_is_counted(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    ledger.reserve_given(share(1), gpus(0), observe())
    note(ledger, node, 1, {"use": {"scans": [["0", 5, 60]]}})
    note(ledger, node, 2, use(60_000), kind=PROLOG)
    note(ledger, node, 3, {"use": {"driver": ROWS}})
    note(ledger, node, 4, {})
    assert since(ledger, node, today(store) - 5) == {}
    assert store.raw_client.hget(node_hashes.usage, "use:total") is None


def test_the_days_go_on_where_another_release_or_nobody_opened_them(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    now, before = today(store), {"ann\tjob": [10, 5, 0, 1, 10, 5]}
    known = {"use:total": json.dumps(before), "use:day": now - 3, "day": now, "from": "0-0"}
    store.raw_client.hset(node_hashes.usage, mapping=known)
    assert since(ledger, node, now - 2) == {}
    assert since(ledger, node, now - 3) == {"ann\tjob": [10, 5, 0, 10, 5]}
    note(ledger, node, 1, use(0, ROWS[:1]))
    assert since(ledger, node, now - 1) == {"ann\tjob": [0, 0, 0, 0, 0]}
    assert json.loads(store.raw_client.hget(node_hashes.usage, f"use:{now - 1}")) == before


def test_who_has_had_no_use_for_long_is_forgotten(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    kept, now = 91, today(store)
    old, active = {"zoe\trun": [9, 0, 0, 1, 9, 1]}, {"ann\tjob": [8, 0, 0, 1, 8, 1]}
    days = {f"use:{now - ago}": json.dumps(old) for ago in range(1, kept + 5)}
    total = json.dumps(old | active)
    known = {**days, "use:total": total, "use:day": now - 1, "day": now - 1, "from": "0-0"}
    store.raw_client.hset(node_hashes.usage, mapping=known)
    ledger.publish_scan(observe())
    fields: dict[str, str] = store.raw_client.hgetall(node_hashes.usage)
    kept_days = sorted(int(one[4:]) for one in fields if one[:4] == "use:" and one[4:].isdecimal())
    assert (kept_days[0], kept_days[-1]) == (now - kept, now - 1)
    assert json.loads(fields["use:total"]) == active
    assert since(ledger, node, now - 90) == {"ann\tjob": [8, 0, 0, 8, 1]}


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"a": 1}', '{"ann\\tjob": "x"}', "\x00"])
def test_a_field_of_another_program_stops_no_script(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys, text: str
) -> None:
    fields = dict.fromkeys(("use:total", "use:day", f"use:{today(store) - 1}"), text)
    store.raw_client.hset(node_hashes.usage, mapping={"day": today(store) - 2, **fields})
    ledger.reserve_given(job(1), gpus(0), observe())
    note(ledger, node, 1, use(2 * DAY_MS))
    assert ledger.release(node, job(1).owner, "ended") == [uuid(0)]
    read = ledger.read_usage(1, [node])
    for one in read.counted:
        used_on_node(one, TimeSpan(read.first_day * DAY_S, read.read_at))
    assert [one.kind for one in ledger.history(node, 0)][-2:] == [EPILOG, "release"]


GARBAGE: list[Any] = [
    None, 1, "x", [], {}, [1], {"driver": 1}, {"driver": [[]], "held_ms": 1},
    {"driver": ROWS}, {"driver": ROWS, "held_ms": "9"}, {"driver": ROWS, "held_ms": True},
    {"driver": ROWS, "held_ms": 1e300}, {"driver": ROWS, "held_ms": float("nan")},
    {"driver": ROWS, "held_ms": -1}, {"driver": ROWS, "held_ms": 1e11 + 1},
]  # fmt: skip


@pytest.mark.parametrize("fact", GARBAGE)
def test_what_is_no_use_counts_nothing(fact: Any) -> None:
    assert held_use(fact) is None


def test_amounts_are_within_the_time_for_which_gpus_were_held() -> None:
    rows = [["0", 9e11, 1, 9e9], ["x" * 10**6, "y", {}, []]] * 400
    found = held_use({"driver": rows, "held_ms": 1000, "idle_ms": 1e11})
    assert found is not None
    assert found.amounts == (256_000, 128_000, 256_000, 0, 128_000, 128_000)
    assert max(found.amounts) <= 256 * found.held_ms
