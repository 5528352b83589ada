"""Histories of the last release, and of nodes of both releases, tell the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from ledger_samples import (
    Observe,
    Store,
    as_told,
    gpus,
    job,
    manual,
    run,
    share,
    uuid,
    wait_for_next_ms,
    waiter,
)

from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.history.entries import event_from_fields, events_from_entry, short_names
from canhazgpu.ledger.store.keys import NodeKeys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Event
from canhazgpu.node.identity import NodeIdentity

RECORDED: dict[str, list[Any]] = json.loads(
    Path(__file__).with_name("last_release.json").read_text("utf-8")
)
"""What the last release wrote into a node's history, and the events that it read from this."""


def test_the_last_releases_entries_are_read_as_it_read_them() -> None:
    read = [asdict(one) for entry in RECORDED["entries"] for one in events_from_entry(*entry)]
    found = sorted(json.loads(json.dumps(read)), key=lambda one: one["at"])
    for one, expected in zip(found, RECORDED["events"], strict=True):
        # A claim may have fields that it had not then.
        claim = expected["claim"] and one["claim"] | expected["claim"]
        assert one == {**expected, "claim": claim}
        assert one["claim"] == claim


def test_a_history_goes_on_from_one_form_to_the_other(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    for entry_id, fields in RECORDED["entries"]:
        store.raw_client.xadd(node_hashes.history, fields, id=entry_id)
    before = ledger.history(node, 0)
    assert len(before) == len(RECORDED["events"])
    last = ledger.wait_for_event(node, "", 0)
    ledger.reserve_count(job(77), 2, observe())
    ledger.release(node, job(77).owner, "job ended")
    assert ledger.wait_for_event(node, last, 0) > last
    after = ledger.history(node, 0)
    assert after[: len(before)] == before
    assert [(one.kind, one.gpu) for one in after[len(before) :]] == [
        ("grant", uuid(0)),
        ("grant", uuid(1)),
        ("release", uuid(0)),
        ("release", uuid(1)),
    ]


def scanned_by_the_last_release(store: Store, hashes: NodeKeys) -> None:
    """As that release publishes a scan: it knows nothing of the other field."""
    store.raw_client.hset(hashes.scan, "at", "1700000000000")


def test_a_node_of_the_last_release_can_read_what_others_tell(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    ledger.reserve_given(share(1), gpus(0), observe())
    ledger.reserve_given(manual(1), gpus(1, 2), observe())
    scanned_by_the_last_release(store, node_hashes)
    last = ledger.wait_for_event(node, "", 0)
    ledger.join_queue(node, waiter(run(1)))
    ledger.release(node, manual(1).owner, "maintenance", by="root")
    ledger.release(node, share(1).owner, "job ended")
    ledger.quarantine(node, uuid(3), "fan", "root")
    entries = store.raw_client.xrange(node_hashes.history, f"({last}")
    # By its own code, which reads nothing else.
    told = [event_from_fields(*entry) for entry in entries]
    assert [(one.kind, one.gpu, one.reason, one.by) for one in told if one] == [
        ("wait", "", "", ""),
        ("release", uuid(1), "maintenance", "root"),
        ("release", uuid(2), "maintenance", "root"),
        ("release", uuid(0), "job ended", ""),
        ("quarantine", uuid(3), "fan", "root"),
    ]
    assert told[1] and told[1].claim == as_told(manual(1)) and told[1].granted_at
    assert told[3] and told[3].claim == as_told(share(1))
    assert ledger.history(node, 0)[-5:] == told


def test_a_node_writes_the_form_of_its_own_release(
    observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    scanned_by_the_last_release(store, node_hashes)
    identity = NodeIdentity(node, "c1", "m", "h", records=False)
    RedisLedger(store.config, Role.WRITE, identity=identity).quarantine(node, "GPU-x", "fan", "ann")
    (entry,) = store.raw_client.xrange(node_hashes.history)
    assert "event" not in entry[1]
    # From the first scan of this release on, everybody else does, too.
    ledger = store.ledger()
    ledger.quarantine(node, "GPU-y", "fan", "ann")
    ledger.publish_scan(observe())
    ledger.quarantine(node, "GPU-z", "fan", "ann")
    forms = ["event" in fields for _, fields in store.raw_client.xrange(node_hashes.history)]
    assert forms == [False, True, False]
    assert [one.gpu for one in ledger.history(node, 0)] == ["GPU-x", "GPU-y", "GPU-z"]


def test_names_of_a_table_that_was_lost_are_not_taken_for_others(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    ledger.reserve_given(job(1), gpus(3), observe())
    store.raw_client.delete(node_hashes.history_meta)
    wait_for_next_ms()
    ledger.reserve_given(replace(job(2), user="bob"), gpus(0), observe())
    lost, known = ledger.history(node, 0)
    assert (lost.gpu, lost.claim and lost.claim.user) == ("", "unknown")
    assert (known.gpu, known.claim and known.claim.user) == (uuid(0), "bob")


@pytest.mark.parametrize(
    "garbage", [{"next": "x"}, {"written": "x"}, {"marks": "x 1-1"}, {"gpu:GPU-0": "x"}]
)
def test_no_content_of_the_table_stops_a_change(
    ledger: RedisLedger,
    observe: Observe,
    node: str,
    store: Store,
    node_hashes: NodeKeys,
    garbage: dict[str, str],
) -> None:
    store.raw_client.hset(node_hashes.history_meta, mapping=garbage)
    ledger.reserve_given(job(1), gpus(0, 1), observe())
    assert [one.gpu for one in ledger.history(node, 0)] == [uuid(0), uuid(1)]


def test_an_index_that_changed_is_told_with_the_note(ledger: RedisLedger, node: str) -> None:
    names = short_names({"gpu:GPU-a": "1 20000 3", "user:1 ann": "2 20000 ", "cluster": "c1"})
    fields = {"2": "p", "g": "1@0", "o": "12:1", "u": "2", "a": "1000", "d": "41"}
    (event,) = events_from_entry("5000-0", fields, names)
    assert event.at == 4.0 and event.claim and event.claim.owner == "job:c1:12:1"
    assert event.facts["seen"] == [{"gpu": "GPU-a", "place": "0", "state": "free"}]
    assert event.facts["took_s"] == 0.041


@pytest.mark.parametrize(
    "owner",
    [
        "job:c1:1:0",
        "job:c2:1:0",
        "job:c1:1:3",
        "job:c1:01:0",
        "job:c1:1:00",
        "7",
        "=7",
        "job:x",
        "a b",
    ],
)
def test_every_owner_comes_back(
    ledger: RedisLedger, observe: Observe, node: str, owner: str
) -> None:
    ledger.reserve_count(job(9), 1, observe())
    ledger.reserve_count(replace(run(1), owner=owner), 1, observe())
    told = ledger.history(node, 0)[-1]
    assert told.claim and (told.claim.owner, told.claim.job_id) == (owner, None)


def test_gpus_of_one_change_share_an_entry(
    ledger: RedisLedger,
    observe: Observe,
    node: str,
    store: Store,
    node_hashes: NodeKeys,
) -> None:
    ledger.reserve_given(job(1), gpus(0, 1, 2, 3), observe())
    wait_for_next_ms()
    ledger.publish_scan(observe(in_use=(2,)))
    wait_for_next_ms()
    ledger.publish_scan(observe(in_use=(2,)))
    ledger.release(node, job(1).owner, "job ended")
    assert store.raw_client.xlen(node_hashes.history) == 2
    released = [one for one in ledger.history(node, 0) if one.kind == "release"]
    idle: Callable[[Event], bool] = lambda one: one.idle_s > 0  # noqa: E731
    assert [idle(one) for one in released] == [True, True, False, True]


@pytest.mark.parametrize("ahead_ms", ["3600000", str(10**15), str(2**64 - 2000000000000)])
def test_an_entry_of_the_future_hides_no_time(
    ledger: RedisLedger, node: str, store: Store, node_hashes: NodeKeys, ahead_ms: str
) -> None:
    """The store's clock was set back, or another program wrote an entry."""
    future = int(store.raw_client.time()[0]) * 1000 + int(ahead_ms)
    store.raw_client.xadd(node_hashes.history, {"x": "y"}, id=f"{future}-7")
    before = store.raw_client.time()[0]
    ledger.quarantine(node, uuid(1), "fan", "root")
    ledger.quarantine(node, uuid(2), "fan", "root")
    told = ledger.history(node, 0)
    assert [one.gpu for one in told] == [uuid(1), uuid(2)]
    if len(ahead_ms) < 10:
        assert all(before <= one.at < before + 60 for one in told)
