"""The history, read and waited on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ledger_samples import (
    Observe,
    Store,
    as_told,
    job,
    manual,
    new_node_name,
    observation,
    patch_record,
    run,
    store_time_ms,
    uuid,
    wait_for_next_ms,
    waiter,
)

from canhazgpu.ledger.store import keys
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.history import reading
from canhazgpu.ledger.store.keys import NodeKeys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Event


def test_an_event_tells_who_what_and_when(ledger: RedisLedger, observe: Observe, node: str) -> None:
    ledger.reserve_count(job(1), 1, observe())
    (seen,) = ledger.read_nodes([node])
    ledger.release(node, job(1).owner, "job ended", by="root")
    grant, release = ledger.history(node, 0)
    granted_at = seen.reservations[uuid(0)].granted_at
    assert replace(grant, id="", at=0) == Event(
        "", 0, "grant", uuid(0), claim=as_told(job(1)), granted_at=granted_at
    )
    assert replace(release, id="", at=0) == Event(
        "", 0, "release", uuid(0), as_told(job(1)), granted_at, "job ended", "root"
    )
    assert grant.at == pytest.approx(granted_at, abs=0.1)
    assert granted_at <= release.at <= ledger.read_nodes([node])[0].read_at


def test_the_history_begins_where_it_is_asked_for(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_count(job(1), 1, observe())
    wait_for_next_ms()
    since = ledger.read_nodes([node])[0].read_at
    wait_for_next_ms()
    ledger.release(node, job(1).owner, "end")
    assert [one.kind for one in ledger.history(node, since)] == ["release"]
    assert ledger.history(node, since + 3600) == []
    assert [one.kind for one in ledger.history(node, -1)] == ["grant", "release"]


@pytest.mark.parametrize("since_s", [3600.0, 1e11])
def test_recent_events_are_those_of_each_nodes_history(
    store: Store, ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch, since_s: float
) -> None:
    few, many, silent = (new_node_name() for _ in range(3))
    for node, number in ((few, 1), (many, 20)):
        for _ in range(number):
            ledger.reserve_given(job(1), [uuid(0)], observation(node))
            ledger.release(node, job(1).owner, "end")
            # Else the next scan may have begun before the release.
            wait_for_next_ms()
    ledger.publish_scan(observation(silent))
    ledger.publish_scan(observation(few))
    ledger.publish_scan(observation(many))
    now, found = ledger.recent_events(since_s)
    assert found[silent] == []
    assert len(found[few]) == 2
    assert len(found[many]) > reading.FEW
    for node in (few, many):
        assert found[node] == ledger.history(node, now - since_s)
    # What is older than the time asked for is not told, to the millisecond.
    (grant, _) = found[few]
    monkeypatch.setattr(RedisLedger, "_names", lambda *_: [few])
    later, found = ledger.recent_events(0.0)
    assert (found, later >= now) == ({few: []}, True)
    assert ledger.recent_events(later - grant.at + 60)[1][few][0] == grant
    assert store.raw_client.xlen(keys.node_keys(few).history) >= 2


def test_a_node_without_a_history_has_none(ledger: RedisLedger, node: str) -> None:
    assert ledger.history(node, 0) == []


def test_what_is_noticed_late_comes_when_it_was(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    ledger.reserve_given(manual(1), [uuid(0)], observe())
    wait_for_next_ms()
    ended = store_time_ms(store.raw_client)
    patch_record(store.raw_client, node_hashes.reservations, uuid(0), expires_ms=ended)
    wait_for_next_ms()
    ledger.join_queue(node, waiter(run(1)))
    wait_for_next_ms()
    ledger.reserve_given(job(2), [uuid(1)], observe())
    told = ledger.history(node, 0)
    assert [one.kind for one in told] == ["grant", "release", "wait", "grant"]
    assert told[1].at == ended / 1000
    assert [one.kind for one in ledger.history(node, (ended + 1) / 1000)] == ["wait", "grant"]


def test_other_writers_entries_hide_none(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    for fields in ({"x": "y"}, {"event": ""}, {"event": "odd", "claim": "[", "at": "soon"}):
        store.raw_client.xadd(node_hashes.history, fields)
    for claim in ('{"owner": 7}', '{"owner":"a","type":"b","user":"c","idle_ms":"x"}'):
        store.raw_client.xadd(
            node_hashes.history, {"event": "release", "claim": claim, "at": "nan"}
        )
    ledger.reserve_count(job(1), 1, observe())
    told = ledger.history(node, 0)
    assert [one.kind for one in told] == ["odd", "release", "release", "grant"]
    assert [one.claim.owner for one in told if one.claim] == [
        "unreadable",
        "unreadable",
        "a",
        job(1).owner,
    ]
    now = ledger.read_nodes([node])[0].read_at
    assert all(now - 60 < one.at <= now for one in told)
    assert {one.idle_s for one in told} == {0.0}


def test_a_long_history_is_read_in_pages(
    ledger: RedisLedger,
    node: str,
    store: Store,
    node_hashes: NodeKeys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "ENTRIES_PER_READ", 7)
    for number in range(21):
        # Several in each millisecond.
        store.raw_client.xadd(
            node_hashes.history, {"event": f"e{number}"}, id=f"{1 + number // 5}-*"
        )
        assert [one.kind for one in ledger.history(node, 0)] == [
            f"e{one}" for one in range(number + 1)
        ]


def changes(ledger: RedisLedger, node: str, observe: Observe) -> dict[str, Callable[[], object]]:
    """All that a waiter may wait for."""

    def expire_in_the_next_script() -> None:
        ledger.reserve_given(manual(5, 0.001), [uuid(3)], observe())
        wait_for_next_ms()
        ledger.join_queue(node, waiter(run(1)))

    return {
        "release": lambda: ledger.release(node, job(1).owner, "end"),
        "grant": lambda: ledger.reserve_count(run(9), 1, observe()),
        "wait": lambda: ledger.join_queue(node, waiter(run(2))),
        "leave": lambda: ledger.leave_queue(node, [run(1).owner], "gave up"),
        "extend": lambda: ledger.extend(node, manual(1).owner, 60),
        "quarantine": lambda: ledger.quarantine(node, uuid(3), "fan", "root"),
        "unquarantine": lambda: ledger.unquarantine(node, uuid(2), "root"),
        "health": lambda: ledger.publish_scan(observe()),
        "expiry": expire_in_the_next_script,
    }


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    "change",
    [
        "release",
        "grant",
        "wait",
        "leave",
        "extend",
        "quarantine",
        "unquarantine",
        "health",
        "expiry",
    ],
)
def test_every_change_wakes_who_waits(
    store: Store, ledger: RedisLedger, observe: Observe, node: str, change: str, role: Role
) -> None:
    ledger.publish_scan(observe(unhealthy={2: "Xid 79"}))
    ledger.reserve_count(job(1), 1, observe(unhealthy={2: "Xid 79"}))
    ledger.reserve_count(manual(1), 1, observe(unhealthy={2: "Xid 79"}))
    ledger.join_queue(node, waiter(run(1)))
    watcher = store.ledger(role)
    before = watcher.wait_for_event(node, "", 0)
    woken: list[str] = []
    # Far longer than the test may take: only the change ends it.
    thread = threading.Thread(
        target=lambda: woken.append(watcher.wait_for_event(node, before, 250))
    )
    thread.start()
    changes(ledger, node, observe)[change]()
    thread.join()
    assert woken[0] > before
    assert woken[0] in [one.id for one in ledger.history(node, 0)]


def test_a_sign_of_life_wakes_nobody(ledger: RedisLedger, observe: Observe, node: str) -> None:
    ledger.reserve_count(run(1), 1, observe())
    ledger.join_queue(node, waiter(run(2)))
    before = ledger.wait_for_event(node, "", 0)
    ledger.renew(node, run(1).owner)
    ledger.join_queue(node, waiter(run(2)))
    ledger.publish_scan(observe())
    assert ledger.wait_for_event(node, before, 0.05) == before


def test_an_empty_history_has_a_beginning_to_wait_from(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    assert ledger.wait_for_event(node, "", 250) == "0-0"
    assert ledger.wait_for_event(node, "0-0", 0.01) == "0-0"
    ledger.reserve_count(job(1), 1, observe())
    assert ledger.wait_for_event(node, "0-0", 250) == ledger.history(node, 0)[-1].id


@pytest.mark.slow
def test_nothing_that_happens_between_two_calls_is_missed(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    seen = ledger.wait_for_event(node, "", 0)
    for number in range(50):
        ledger.reserve_count(job(number), 1, observe())
        ledger.release(node, job(number).owner, "end")
        wait_for_next_ms()
        # Returns at once, with the last of both.
        seen = ledger.wait_for_event(node, seen, 250)
        assert seen == ledger.history(node, 0)[-1].id


@pytest.mark.slow
def test_waiting_longer_than_an_answer_may_take_is_no_error(store: Store, node: str) -> None:
    config = replace(store.config, timeout_s=0.1)
    ledger = RedisLedger(config, Role.READ)
    began = time.monotonic()
    assert ledger.wait_for_event(node, "0-0", 1.3) == "0-0"
    assert time.monotonic() - began >= 1.3


def test_who_waits_keeps_nobody_waiting(
    store: Store, ledger: RedisLedger, observe: Observe, node: str
) -> None:
    """Eight threads wait with one ledger object; its other operations go on, and wake them."""
    woken: list[str] = []
    threads = [
        threading.Thread(target=lambda: woken.append(ledger.wait_for_event(node, "0-0", 250)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for _ in range(20):
        ledger.read_nodes([node])
        ledger.renew(node, run(1).owner)
    assert woken == []
    ledger.reserve_count(run(1), 1, observe())
    for thread in threads:
        thread.join()
    assert len(woken) == 8


FORMER_FIELDS = [b"event", b"at", b"gpu", b"claim", b"facts", b"reason", b"by"]
FIELDS = st.sampled_from([*FORMER_FIELDS, b"2", b"g", b"o", b"u", b"a", b"d", b"r", b"m"])
TEXTS = st.sampled_from(
    [b"grant", b"{}", b"[]", b"1e999", b"\xff", b"\x00", b"null", b'{"a":1e400}']
)
ENTRIES = st.dictionaries(
    FIELDS | st.binary(max_size=9), TEXTS | st.binary(max_size=40), min_size=1
)


@pytest.mark.slow
@given(st.lists(ENTRIES, min_size=1, max_size=5))
@example([{b"event": b"\xff\xfe", b"claim": b"\xff", b"facts": b"\xff", b"at": b"\xff"}])
@example([{b"event": b"prolog", b"reason": b"x" * 2**19, b"facts": b"[" * 2**16}])
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
def test_any_bytes_of_another_program_are_read(
    store: Store,
    ledger: RedisLedger,
    node_hashes: NodeKeys,
    node: str,
    entries: list[dict[bytes, bytes]],
) -> None:
    store.raw_client.delete(node_hashes.history)
    for entry in entries:
        store.raw_client.xadd(node_hashes.history, entry)  # type: ignore[arg-type]
    told = [entry for entry in entries if entry.get(b"event") or entry.get(b"2")]
    gpus = sum(entry.get(b"g", b"").count(b",") for entry in told)
    assert len(ledger.history(node, -1e300)) <= len(told) + gpus
    # Only a time of its own may put an event before what was asked for.
    without_times = [entry for entry in told if not entry.keys() & {b"at", b"a"}]
    assert len(ledger.history(node, 0)) >= len(without_times)
    nodes = {node: node_hashes}
    assert reading.read_recent(ledger._session, nodes, 0) == {node: ledger.history(node, 0)}
    ledger.wait_for_event(node, "", 0)
