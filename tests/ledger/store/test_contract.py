"""What every ledger does, over each kind of real store."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from ledger_samples import (
    Observe,
    Store,
    as_told,
    gpus,
    job,
    run,
    uuid,
    view,
    wait_for_next_ms,
    waiter,
)

from canhazgpu.errors import InputError, StoreError
from canhazgpu.gpu.scan import Scan
from canhazgpu.gpu.scan_json import scan_to_published_json
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus, TooFewGpus
from canhazgpu.ledger.port import GrantOptions, Observation
from canhazgpu.ledger.store import keys
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import NodeKeys
from canhazgpu.ledger.store.ledger import RedisLedger

UNREADABLE = ["", "no json", "[]", "null", "7", '{"owner": 5}', '{"a":' * 2000, '"job:c1:1:0"']
UNREADABLE += ['{"owner": "job:c1:1:0", "type": "job", "user": null, "granted_ms": 1}']
UNREADABLE += [
    f'{{"owner": "job:c1:1:0", "type": "job", "user": "ann", "granted_ms": {time}}}'
    for time in ("1e999", "NaN", '"1"', "null", "true")
]


def test_a_count_is_granted_in_index_order_at_first(ledger: RedisLedger, observe: Observe) -> None:
    assert ledger.reserve_count(job(1), 2, observe()) == GrantedGpus(gpus(0, 1))
    assert ledger.reserve_count(job(2), 2, observe()) == GrantedGpus(gpus(2, 3))


def test_ten_and_more_gpus_keep_the_scans_order(ledger: RedisLedger, observe: Observe) -> None:
    assert ledger.reserve_count(job(1), 12, observe(16)) == GrantedGpus(gpus(*range(12)))
    assert ledger.reserve_count(job(1), 12, observe(16)) == GrantedGpus(
        gpus(*range(12)), repeated=True
    )


def test_a_count_is_granted_whole_or_not_at_all(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_count(job(1), 2, observe())
    assert ledger.reserve_count(job(2), 3, observe()) == TooFewGpus(3, 2, 2, 0, 0, 0)
    assert {one.claim.owner for one in view(ledger, node).reservations.values()} == {job(1).owner}


@pytest.mark.parametrize("count", [0, -1, 5])
def test_a_count_that_no_node_can_give_is_short(
    ledger: RedisLedger, observe: Observe, count: int
) -> None:
    assert ledger.reserve_count(job(1), count, observe()) == TooFewGpus(count, 4, 0, 0, 0, 0)


def test_the_least_recently_released_goes_first_and_the_never_released_before(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    for index in (2, 0, 1):
        ledger.reserve_given(job(index), gpus(index), observe())
        ledger.release(node, job(index).owner, "end")
        wait_for_next_ms()
    granted = [ledger.reserve_count(job(f"n{turn}"), 1, observe()) for turn in range(4)]
    assert granted == [GrantedGpus(gpus(index)) for index in (3, 2, 0, 1)]


def test_the_choice_is_lru_and_the_answer_in_index_order(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    for index in (3, 0):
        ledger.reserve_given(job(index), gpus(index), observe())
        ledger.release(node, job(index).owner, "end")
        wait_for_next_ms()
    ledger.reserve_given(job("other"), gpus(2), observe())
    assert ledger.reserve_count(job(9), 2, observe()) == GrantedGpus(gpus(1, 3))
    assert ledger.reserve_count(job(9), 2, observe()) == GrantedGpus(gpus(1, 3), repeated=True)


def test_a_count_is_granted_among_the_candidates_alone(
    ledger: RedisLedger, observe: Observe
) -> None:
    def among(*indices: int) -> GrantOptions:
        return GrantOptions(candidates=frozenset(gpus(*indices)))

    seen = observe(in_use=(1,))
    assert ledger.reserve_count(job(1), 2, seen, among(1, 3)) == TooFewGpus(2, 1, 0, 1, 0, 0)
    assert ledger.reserve_count(job(1), 1, seen, among()) == TooFewGpus(1, 0, 0, 0, 0, 0)
    assert ledger.reserve_count(job(1), 1, seen, among(7)) == TooFewGpus(1, 0, 0, 0, 0, 0)
    assert ledger.reserve_count(job(1), 2, seen, among(1, 2, 3)) == GrantedGpus(gpus(2, 3))
    assert ledger.reserve_count(job(2), 1, seen, among(2, 3)) == TooFewGpus(1, 0, 2, 0, 0, 0)
    # What the owner has, it has, whatever it asks for now.
    repeated = ledger.reserve_count(job(1), 1, seen, among(0))
    assert repeated == GrantedGpus(gpus(2, 3), repeated=True)


def test_given_gpus_are_granted_in_the_order_asked_for(
    ledger: RedisLedger, observe: Observe
) -> None:
    assert ledger.reserve_given(job(1), gpus(3, 1), observe()) == GrantedGpus(gpus(3, 1))
    assert ledger.reserve_given(job(1), gpus(3, 1), observe()) == GrantedGpus(
        gpus(3, 1), repeated=True
    )


def test_given_gpus_are_granted_whole_or_not_at_all(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_given(job(1), gpus(2), observe())
    answer = ledger.reserve_given(job(2), gpus(0, 1, 2), observe())
    assert isinstance(answer, BlockedGpu)
    assert (answer.gpu, answer.why) == (uuid(2), "reserved")
    assert answer.holder is not None
    assert answer.holder.claim == job(1)
    assert set(view(ledger, node).reservations) == {uuid(2)}


def test_a_gpu_named_twice_is_granted_once(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, node_hashes: NodeKeys
) -> None:
    assert ledger.reserve_given(job(1), gpus(1, 1), observe()) == GrantedGpus(gpus(1))
    assert store.raw_client.xlen(node_hashes.history) == 1


def test_an_owner_that_holds_gpus_gets_no_others(ledger: RedisLedger, observe: Observe) -> None:
    ledger.reserve_count(job(1), 2, observe())
    for count in (1, 2, 3):
        again = ledger.reserve_count(job(1), count, observe())
        assert again == GrantedGpus(gpus(0, 1), repeated=True)


def test_what_an_owner_holds_is_repeated_whatever_the_scan_says_now(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_count(job(1), 2, observe())
    kept = GrantedGpus(gpus(0, 1), repeated=True)
    busy = observe(in_use=(0,), unknown=(1,))
    assert ledger.reserve_count(job(1), 2, busy) == kept
    assert ledger.reserve_given(job(1), gpus(0, 1), busy) == kept
    # The GPUs, or the whole scan, are gone.
    faulty = Observation(Scan(node, 0.0, 0.0, (), "driver"), 0.0)
    assert ledger.reserve_count(job(1), 2, faulty) == kept
    assert ledger.reserve_given(job(1), gpus(0, 1), faulty) == kept


def test_the_end_of_one_attempt_leaves_the_next_alone(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_count(job(7, attempt=1), 1, observe())
    assert ledger.release(node, job(7, attempt=0).owner, "late") == []
    assert ledger.release(node, job(7, attempt=10).owner, "prefix") == []
    assert ledger.release(node, job(7, attempt=1).owner, "end") == [uuid(0)]


def test_an_attempt_gets_gpus_of_its_own(ledger: RedisLedger, observe: Observe) -> None:
    assert ledger.reserve_count(job(7, 0), 1, observe()) == GrantedGpus(gpus(0))
    assert ledger.reserve_count(job(7, 1), 1, observe()) == GrantedGpus(gpus(1))
    blocked = ledger.reserve_given(job(7, 1), gpus(0), observe())
    assert isinstance(blocked, BlockedGpu)
    assert blocked.why == "reserved"


def test_a_release_is_done_once(ledger: RedisLedger, observe: Observe, node: str) -> None:
    ledger.reserve_count(job(1), 2, observe())
    assert sorted(ledger.release(node, job(1).owner, "end")) == list(gpus(0, 1))
    first = view(ledger, node).released_at
    wait_for_next_ms()
    assert ledger.release(node, job(1).owner, "end") == []
    assert view(ledger, node).released_at == first


def test_releasing_nothing_is_no_error(ledger: RedisLedger, node: str) -> None:
    assert ledger.release(node, "job:c1:404:0", "end") == []
    assert view(ledger, node).released_at == {}


def test_only_the_named_gpus_are_released(ledger: RedisLedger, observe: Observe, node: str) -> None:
    ledger.reserve_count(job(1), 3, observe())
    ledger.reserve_count(job(2), 1, observe())
    assert ledger.release(node, job(1).owner, "moved in", gpus(1, 3)) == [uuid(1)]
    left = view(ledger, node).reservations
    assert {gpu: one.claim for gpu, one in left.items()} == {
        uuid(0): job(1),
        uuid(2): job(1),
        uuid(3): job(2),
    }


def test_a_gpu_released_after_the_scan_began_waits_for_the_next_scan(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_given(job(1), gpus(0), observe(1))
    ledger.release(node, job(1).owner, "end")
    old = observe(1, age_s=5)
    assert ledger.reserve_count(job(2), 1, old) == TooFewGpus(1, 0, 0, 0, 0, stale=1)
    assert ledger.reserve_given(job(2), gpus(0), old) == BlockedGpu(uuid(0), "stale")
    wait_for_next_ms()
    assert ledger.reserve_count(job(2), 1, observe(1)) == GrantedGpus(gpus(0))


def test_what_is_not_seen_free_is_excluded_and_counted(
    ledger: RedisLedger, observe: Observe, store: Store, node_hashes: NodeKeys
) -> None:
    store.raw_client.hset(node_hashes.quarantine, uuid(4), "{}")
    ledger.reserve_given(job(1), gpus(5), observe(6))
    seen = observe(6, in_use=(0, 1), unknown=(2,))
    assert ledger.reserve_count(job(2), 2, seen) == TooFewGpus(2, 1, 1, 2, 1, 0, unknown=1)
    assert ledger.reserve_count(job(2), 1, seen) == GrantedGpus(gpus(3))


@pytest.mark.parametrize(
    ("gpu", "why"), [(0, "unreserved"), (1, "unknown"), (2, "quarantined"), (9, "unknown")]
)
def test_a_given_gpu_that_is_not_seen_free_says_why(
    ledger: RedisLedger, observe: Observe, node: str, store: Store, gpu: int, why: str
) -> None:
    store.raw_client.hset(keys.node_keys(node).quarantine, uuid(2), "{}")
    seen = observe(in_use=(0,), unknown=(1,))
    assert ledger.reserve_given(job(2), gpus(3, gpu), seen) == BlockedGpu(uuid(gpu), why)
    assert view(ledger, node).reservations == {}


def test_a_scan_that_failed_grants_nothing(ledger: RedisLedger, node: str) -> None:
    faulty = Observation(Scan(node, 0.0, 0.0, (), "no driver"), 0.0)
    assert ledger.reserve_given(job(1), gpus(0), faulty) == BlockedGpu(uuid(0), "unknown")
    assert ledger.reserve_count(job(1), 1, faulty) == TooFewGpus(1, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("record", UNREADABLE)
def test_an_unreadable_reservation_still_reserves(
    ledger: RedisLedger,
    observe: Observe,
    store: Store,
    node: str,
    node_hashes: NodeKeys,
    record: str,
) -> None:
    store.raw_client.hset(node_hashes.reservations, uuid(0), record)
    assert ledger.reserve_count(job(1), 1, observe(1)) == TooFewGpus(1, 0, 1, 0, 0, 0)
    blocked = ledger.reserve_given(job(1), gpus(0), observe(1))
    assert isinstance(blocked, BlockedGpu)
    assert blocked.why == "reserved"
    assert ledger.release(node, job(1).owner, "end") == []
    assert ledger.renew(node, "unreadable") == [uuid(0)]
    assert view(ledger, node).reservations[uuid(0)].claim.owner == "unreadable"
    assert ledger.release(node, "unreadable", "garbage", by="root") == [uuid(0)]
    wait_for_next_ms()
    assert ledger.reserve_count(job(1), 1, observe(1)) == GrantedGpus(gpus(0))


def test_bytes_that_are_no_text_are_a_reservation_of_nobody_known(
    ledger: RedisLedger, observe: Observe, store: Store, node: str, node_hashes: NodeKeys
) -> None:
    store.raw_client.hset(node_hashes.reservations, uuid(0), b"\xff\xfe")
    assert ledger.reserve_count(job(1), 1, observe(1)) == TooFewGpus(1, 0, 1, 0, 0, 0)
    assert view(ledger, node).reservations[uuid(0)].claim.owner == "unreadable"


def test_numbers_that_are_none_stop_nobody(
    ledger: RedisLedger, observe: Observe, store: Store, node: str, node_hashes: NodeKeys
) -> None:
    store.raw_client.hset(node_hashes.released, uuid(0), "yesterday")
    store.raw_client.hset(node_hashes.scan, "at", "once")
    assert ledger.reserve_given(job(1), gpus(0), observe()) == GrantedGpus(gpus(0))
    assert view(ledger, node).scanned_at is not None
    for text in ("inf", "nan", "x"):
        store.raw_client.hset(node_hashes.released, uuid(1), text)
        assert uuid(1) not in view(ledger, node).released_at


def test_the_newest_scan_stays(ledger: RedisLedger, observe: Observe, node: str) -> None:
    ledger.publish_scan(observe(2, age_s=1.0))
    ledger.publish_scan(observe(3, age_s=60.0))
    seen = view(ledger, node)
    assert seen.scan == observe(2).scan
    assert seen.scanned_at == pytest.approx(seen.read_at - 1.0, abs=0.5)
    ledger.publish_scan(observe(4))
    assert view(ledger, node).scan == observe(4).scan


def test_utilization_is_published_beside_the_scan(
    ledger: RedisLedger, observe: Observe, node: str, store: Store
) -> None:
    seen = observe(2)
    gpus = tuple(replace(one, utilization_percent=87) for one in seen.scan.gpus)
    ledger.publish_scan(replace(seen, scan=replace(seen.scan, gpus=gpus)))

    (found,) = ledger.read_nodes([node])
    assert found.scan is not None
    assert [one.utilization_percent for one in found.scan.gpus] == [87, 87]
    # A former release writes a scan and no supplement: that of the scan before is not this one's.
    later = scan_to_published_json(replace(seen.scan, started_at=seen.scan.started_at + 1))
    store.raw_client.hset(keys.node_keys(node).scan, "data", later)
    (found,) = ledger.read_nodes([node])
    assert found.scan is not None
    assert [one.utilization_percent for one in found.scan.gpus] == [None, None]
    store.raw_client.hdel(keys.node_keys(node).scan, "supplement")
    assert ledger.read_nodes([node]) is not None


def test_reserving_publishes_the_scan_and_lists_the_node(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    assert node not in [one.node for one in ledger.read_nodes()]
    ledger.reserve_count(job(1), 1, observe(3))
    (found,) = [one for one in ledger.read_nodes() if one.node == node]
    assert found.scan == observe(3).scan
    ledger.reserve_given(job(2), gpus(1), observe(2, age_s=60))
    assert view(ledger, node).scan == observe(3).scan


def test_a_reservation_is_shown_as_it_was_claimed(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_count(job(1), 1, observe())
    seen = view(ledger, node)
    assert seen.reservations[uuid(0)].claim == job(1)
    assert seen.read_at - 5 < seen.reservations[uuid(0)].granted_at <= seen.read_at
    assert abs(seen.read_at - time.time()) < 60
    ledger.release(node, job(1).owner, "end")
    released = view(ledger, node)
    assert released.reservations == {}
    assert seen.read_at - 5 < released.released_at[uuid(0)] <= released.read_at


def test_a_node_nobody_knows_is_empty(ledger: RedisLedger, node: str) -> None:
    seen = view(ledger, node)
    assert (seen.scan, seen.scanned_at, seen.reservations, seen.quarantines) == (None, None, {}, {})


def test_a_quarantine_is_shown(
    ledger: RedisLedger, store: Store, node: str, node_hashes: NodeKeys
) -> None:
    record = json.dumps({"reason": "Xid 79", "since_ms": 1700000000000})
    store.raw_client.hset(node_hashes.quarantine, mapping={uuid(0): record, uuid(1): "?"})
    seen = view(ledger, node).quarantines
    assert (seen[uuid(0)].reason, seen[uuid(0)].since) == ("Xid 79", 1700000000.0)
    assert "unreadable" in seen[uuid(1)].reason


def test_more_nodes_than_one_read_takes_come_sorted(ledger: RedisLedger, observe: Observe) -> None:
    names = [f"many-{number:03}" for number in range(130)]
    assert [one.node for one in ledger.read_nodes(list(reversed(names)))] == names


def test_a_strange_name_in_the_index_hides_no_node(
    ledger: RedisLedger, observe: Observe, store: Store, node: str
) -> None:
    ledger.publish_scan(observe())
    store.raw_client.sadd(keys.NODES, "no {node}")
    try:
        assert node in [one.node for one in ledger.read_nodes()]
    finally:
        store.raw_client.srem(keys.NODES, "no {node}")


def test_a_reader_sees_everything(
    store: Store, ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_count(job(1), 1, observe())
    reader = store.ledger(Role.READ)
    (seen,) = [one for one in reader.read_nodes() if one.node == node]
    assert seen.reservations[uuid(0)].claim == job(1)
    (event,) = reader.history(node, 0)
    assert event.claim == as_told(job(1))
    assert reader.wait_for_event(node, "", 0) == event.id


@pytest.mark.parametrize("store", ["embedded"], indirect=True)
def test_a_reader_of_the_embedded_store_changes_nothing(
    store: Store, observe: Observe, node: str, ledger: RedisLedger
) -> None:
    ledger.reserve_count(job(1), 1, observe())
    reader = store.ledger(Role.READ)
    for change in (
        lambda: reader.reserve_count(job(2), 1, observe()),
        lambda: reader.release(node, job(1).owner, "end"),
        lambda: reader.publish_scan(observe()),
        lambda: reader.renew(node, job(1).owner),
        lambda: reader.extend(node, job(1).owner, 60),
        lambda: reader.join_queue(node, waiter(run(1))),
        lambda: reader.leave_queue(node, [run(1).owner], "end"),
        lambda: reader.quarantine(node, uuid(0), "fan", "ann"),
        lambda: reader.unquarantine(node, uuid(0), "ann"),
        lambda: reader.forget_node(node),
    ):
        with pytest.raises(StoreError, match="lacks the right"):
            change()
    assert set(view(ledger, node).reservations) == {uuid(0)}


def test_the_history_tells_each_grant_and_release(
    ledger: RedisLedger, observe: Observe, store: Store, node: str, node_hashes: NodeKeys
) -> None:
    ledger.reserve_given(job(1), gpus(0, 1), observe())
    ledger.reserve_given(job(1), gpus(0, 1), observe())
    ledger.release(node, job(1).owner, "job ended", gpus(1))
    events = ledger.history(node, 0)
    assert [(one.kind, one.gpu, one.reason) for one in events] == [
        ("grant", uuid(0), ""),
        ("grant", uuid(1), ""),
        ("release", uuid(1), "job ended"),
    ]
    assert {one.claim.owner for one in events if one.claim} == {job(1).owner}
    assert store.raw_client.xlen(node_hashes.history) == 2


def test_the_history_is_kept_for_the_configured_days(
    observe: Observe, store: Store, node: str, node_hashes: NodeKeys
) -> None:
    store.raw_client.xadd(node_hashes.history, {"event": "old"}, id="1-1")
    for _ in range(300):
        store.raw_client.xadd(node_hashes.history, {"event": "old"}, id="1-*")
    store.ledger().reserve_count(job(1), 1, observe())
    left = store.raw_client.xlen(node_hashes.history)
    # Trimming is by whole nodes of the stream's tree.
    assert left < 120


@pytest.mark.parametrize("days", [1, 10**6, 10**30])
def test_a_history_longer_than_the_epoch_is_kept_whole(
    store: Store, observe: Observe, node: str, days: int
) -> None:
    ledger = RedisLedger(replace(store.config, history_days=days), Role.WRITE)
    assert ledger.reserve_count(job(1), 1, observe()) == GrantedGpus(gpus(0))
    assert ledger.reserve_given(job(2), gpus(1), observe()) == GrantedGpus(gpus(1))
    assert ledger.release(node, job(1).owner, "end") == [uuid(0)]


@pytest.mark.parametrize("name", ["", "a b", "{n}", "n}", "-n", "a\n", "n" * 254, "né", "a/b", "*"])
def test_a_name_that_is_no_nodes_is_refused(
    ledger: RedisLedger, observe: Observe, name: str
) -> None:
    wrong = Observation(Scan(name, 0.0, 0.0, observe().scan.gpus), 0.0)
    for operation in (
        lambda: ledger.reserve_count(job(1), 1, wrong),
        lambda: ledger.reserve_given(job(1), gpus(0), wrong),
        lambda: ledger.release(name, job(1).owner, "end"),
        lambda: ledger.publish_scan(wrong),
        lambda: ledger.read_nodes([name]),
        lambda: ledger.renew(name, job(1).owner),
        lambda: ledger.extend(name, job(1).owner, 60),
        lambda: ledger.join_queue(name, waiter(run(1))),
        lambda: ledger.leave_queue(name, [], "end"),
        lambda: ledger.quarantine(name, uuid(0), "fan", "ann"),
        lambda: ledger.unquarantine(name, uuid(0), "ann"),
        lambda: ledger.forget_node(name),
        lambda: ledger.history(name, 0),
        lambda: ledger.wait_for_event(name, "", 0),
    ):
        with pytest.raises(InputError, match="not a node name"):
            operation()


def test_nodes_have_nothing_in_common(ledger: RedisLedger, observe: Observe, node: str) -> None:
    other = Observation(Scan(f"{node}-b", 0.0, 0.0, observe().scan.gpus), 0.0)
    assert ledger.reserve_count(job(1), 4, observe()) == GrantedGpus(gpus(0, 1, 2, 3))
    assert ledger.reserve_count(job(1), 4, other) == GrantedGpus(gpus(0, 1, 2, 3))
    assert len(ledger.release(node, job(1).owner, "end")) == 4
    assert len(view(ledger, f"{node}-b").reservations) == 4
