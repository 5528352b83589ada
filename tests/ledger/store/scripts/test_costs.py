"""What scripts ask of the server, counted: nothing that grows with what they do not need."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from ledger_samples import Observe, Store, gpus, job, run, waiter
from plugins.fast_set import first_and_variants
from servers.private_redis import BINARIES

from canhazgpu.ledger.journal_entries import EPILOG, JournalEntry, NumberedEntry
from canhazgpu.ledger.store.keys import NodeKeys
from canhazgpu.ledger.store.ledger import RedisLedger

# The embedded store lets nobody count its commands.
STORES_THAT_COUNT = first_and_variants([*BINARIES, "cluster"])
OWN = {"info", "config|resetstat"}
pytestmark = pytest.mark.parametrize("store", STORES_THAT_COUNT, indirect=True, scope="session")


def asked_by(store: Store, act: Callable[[], object]) -> dict[str, int]:
    """The commands that the server carried out meanwhile, those of scripts too."""

    def counted() -> dict[str, int]:
        stats = store.raw_client.info("commandstats")
        return {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}

    before = counted()
    act()
    after = counted()
    more = {name: after[name] - before.get(name, 0) for name in after if name not in OWN}
    return {name: calls for name, calls in more.items() if calls}


def write_note(ledger: RedisLedger, node: str, number: int, uid: int = 1000) -> None:
    claim = replace(job(1), uid=uid, user=f"user{uid}")
    note = JournalEntry(EPILOG, 1.0, claim.owner, gpus(0), claim, facts={"outcome": "released"})
    ledger.record_entries(node, "token", [NumberedEntry(number, note)])


def test_a_note_changes_one_id_in_the_head(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    ledger.reserve_count(job(1), 2, observe())
    ledger.publish_scan(observe())
    write_note(ledger, node, 1)
    before = json.loads(store.raw_client.get(node_hashes.head) or "")

    asked = asked_by(store, lambda: write_note(ledger, node, 2))

    # Neither the reservations nor what a head is made of.
    assert "hgetall" not in asked
    head = json.loads(store.raw_client.get(node_hashes.head) or "")
    ((last, _),) = store.raw_client.xrevrange(node_hashes.history, count=1)
    assert head["texts"]["last"] == last != before["texts"]["last"]
    before["texts"]["last"] = last
    assert head == before


def test_heartbeats_of_several_gpus_are_one_command(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    ledger.reserve_count(job(1), 1, observe())
    ledger.reserve_count(job(2), 3, observe())
    everybody = [job(1).owner, job(2).owner]
    # Of GPUs in use, so that no idle time is written beside.
    seen = replace(observe(), in_use=frozenset(store.raw_client.hkeys(node_hashes.reservations)))
    ledger.publish_scan(seen, everybody)

    def published(alive: list[str]) -> int:
        return asked_by(store, lambda: ledger.publish_scan(seen, alive))["hset"]

    assert published(everybody) == published([job(1).owner]) == published([]) + 1
    records = map(json.loads, store.raw_client.hvals(node_hashes.reservations))
    assert all(one["renewed_ms"] >= one["granted_ms"] for one in records)


def test_the_gpus_of_an_owner_keep_one_record(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    """Scripts and readers of heads read it once."""
    ledger.reserve_count(replace(job(1), job_name="train", boot_id="b", ends_at=4e9), 3, observe())
    for _ in range(2):
        ledger.publish_scan(observe(), [job(1).owner])
        assert len({*store.raw_client.hvals(node_hashes.reservations)}) == 1


def test_what_several_gpus_used_is_counted_at_once(
    ledger: RedisLedger, observe: Observe, node: str, store: Store
) -> None:
    def asked_by_release(number: int, count: int) -> dict[str, int]:
        time.sleep(0.01)  # the scan begins after the release before
        ledger.reserve_count(job(number), count, observe())
        time.sleep(0.01)  # a second entry in one millisecond is tried twice
        return asked_by(store, lambda: ledger.release(node, job(number).owner, "job ended"))

    asked_by_release(1, 4)  # gives the GPUs their short names
    one, three = asked_by_release(2, 1), asked_by_release(3, 3)
    # Each GPU's name, and when and by whom it was released.
    assert three == {
        **one,
        "hget": one["hget"] + 2,
        "hset": one["hset"] + 2 * 2,
        "hdel": one["hdel"] + 2,
    }


def test_a_head_that_missed_an_entry_is_made_anew(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    """Given what another release has changed, the node's next note has it in the head."""
    ledger.publish_scan(observe())
    write_note(ledger, node, 1)
    store.raw_client.hset(node_hashes.quarantine, "GPU-0", json.dumps({"reason": "fan"}))
    store.raw_client.xadd(node_hashes.history, {"event": "quarantine", "gpu": "GPU-0"})

    write_note(ledger, node, 2)

    head = json.loads(store.raw_client.get(node_hashes.head) or "")
    assert head["quarantined"]["GPU-0"]["reason"] == "fan"


def test_a_new_name_costs_the_same_however_many_there_are(
    ledger: RedisLedger, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    numbers = iter(range(1, 1000))
    for uid in range(100):
        write_note(ledger, node, next(numbers), uid)

    def forty_more() -> None:
        for uid in range(100, 140):
            write_note(ledger, node, next(numbers), uid)

    # One look at the reservations each; the names were looked through before, today.
    assert asked_by(store, forty_more)["hgetall"] == 40
    assert store.raw_client.hlen(node_hashes.history_meta) > 140


def test_a_waiters_sign_of_life_asks_the_same_however_many_wait(
    ledger: RedisLedger, observe: Observe, node: str, store: Store
) -> None:
    ledger.publish_scan(observe())

    def sign_of_life() -> dict[str, int]:
        return asked_by(store, lambda: ledger.join_queue(node, waiter(run(1))))

    ledger.join_queue(node, waiter(run(1)))
    alone = sign_of_life()
    for number in range(2, 40):
        ledger.join_queue(node, waiter(run(number)))
    assert sign_of_life() == alone
