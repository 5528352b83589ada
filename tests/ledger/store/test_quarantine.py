"""Quarantine by hand and by health, and the time that GPUs are reserved and unused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ledger_samples import (
    Observe,
    Store,
    gpus,
    job,
    patch_record,
    run,
    store_time_ms,
    uuid,
    view,
    wait_for_next_ms,
)

from canhazgpu.gpu.scan import Scan
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus, TooFewGpus
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.store.keys import NodeKeys
from canhazgpu.ledger.store.ledger import RedisLedger

SICK = {0: "row remap pending"}


def told(ledger: RedisLedger, node: str) -> list[tuple[str, str, str, str]]:
    return [
        (one.kind, one.gpu, one.reason, one.by)
        for one in ledger.history(node, 0)
        if "quarantine" in one.kind
    ]


def test_a_gpu_is_held_back_by_hand_until_that_is_lifted(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    assert ledger.quarantine(node, uuid(0), "fan is loud", "root") is True
    found = view(ledger, node).quarantines[uuid(0)]
    assert (found.gpu, found.reason, found.by) == (uuid(0), "fan is loud", "root")
    assert found.since <= view(ledger, node).read_at
    assert ledger.reserve_count(job(1), 1, observe(1)) == TooFewGpus(1, 0, 0, 0, 1, 0)
    assert ledger.reserve_given(job(1), gpus(0), observe()) == BlockedGpu(uuid(0), "quarantined")
    assert ledger.unquarantine(node, uuid(0), "ops") is True
    assert ledger.reserve_count(job(1), 1, observe(1)) == GrantedGpus(gpus(0))
    assert told(ledger, node) == [
        ("quarantine", uuid(0), "fan is loud", "root"),
        ("unquarantine", uuid(0), "", "ops"),
    ]


def test_what_is_done_already_changes_nothing(ledger: RedisLedger, node: str) -> None:
    assert ledger.unquarantine(node, uuid(0), "root") is False
    assert ledger.quarantine(node, uuid(0), "first", "root") is True
    first = view(ledger, node).quarantines
    wait_for_next_ms()
    assert ledger.quarantine(node, uuid(0), "second", "ops") is False
    assert ledger.quarantine(node, uuid(0), "second", "health") is False
    assert view(ledger, node).quarantines == first
    assert len(told(ledger, node)) == 1


def test_whoever_has_a_gpu_keeps_it_in_quarantine(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_count(job(1), 1, observe())
    ledger.quarantine(node, uuid(0), "fan", "root")
    assert ledger.reserve_count(job(1), 1, observe()) == GrantedGpus(gpus(0), repeated=True)
    ledger.publish_scan(observe(unhealthy={0: "Xid"}))
    assert set(view(ledger, node).reservations) == {uuid(0)}


@pytest.mark.parametrize("how", ["publish_scan", "reserve_count", "reserve_given"])
def test_a_sick_gpu_is_held_back_at_once_and_until_it_is_well(
    ledger: RedisLedger, observe: Observe, node: str, how: str
) -> None:
    def see(owner: int, **details: object) -> object:
        wait_for_next_ms()
        seen = observe(1, **details)
        if how == "publish_scan":
            return ledger.publish_scan(seen)
        if how == "reserve_count":
            return ledger.reserve_count(job(owner), 1, seen)
        return ledger.reserve_given(job(owner), gpus(0), seen)

    refused = {
        "publish_scan": None,
        "reserve_count": TooFewGpus(1, 0, 0, 0, 1, 0),
        "reserve_given": BlockedGpu(uuid(0), "quarantined"),
    }[how]
    assert see(1, unhealthy=SICK) == refused
    first = view(ledger, node).quarantines[uuid(0)]
    assert (first.reason, first.by) == (SICK[0], "health")
    assert see(1, unhealthy=SICK) == refused
    assert view(ledger, node).quarantines[uuid(0)] == first
    assert see(1, unhealthy={0: "lost"}) == refused
    other = view(ledger, node).quarantines[uuid(0)]
    assert other.reason == "lost"
    assert other.since > first.since
    assert see(1) in (None, GrantedGpus(gpus(0)))
    assert view(ledger, node).quarantines == {}
    assert told(ledger, node) == [
        ("quarantine", uuid(0), SICK[0], "health"),
        ("quarantine", uuid(0), "lost", "health"),
        ("unquarantine", uuid(0), "", "health"),
    ]


def test_a_gpu_that_the_scan_could_not_judge_stays_as_it_is(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.publish_scan(observe(2, unhealthy=SICK))
    for seen in (
        observe(2, unknown=(0,)),
        Observation(observe(2).scan, 0.0, unknown=frozenset([uuid(0), uuid(1)])),
        Observation(Scan(node, 0.0, 0.0, (), "no driver"), 0.0),
    ):
        ledger.publish_scan(seen)
        assert set(view(ledger, node).quarantines) == {uuid(0)}
    # In use is judged.
    ledger.publish_scan(observe(2, in_use=(0,)))
    assert view(ledger, node).quarantines == {}


def test_a_gpu_that_has_fallen_off_the_bus_stays_in_quarantine(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.publish_scan(observe(4, unhealthy={3: "Xid 79"}))
    ledger.publish_scan(observe(3))
    assert set(view(ledger, node).quarantines) == {uuid(3)}


def test_health_leaves_an_administrators_quarantine_alone(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.quarantine(node, uuid(0), "fan", "root")
    before = view(ledger, node).quarantines
    for seen in (observe(unhealthy=SICK), observe()):
        ledger.publish_scan(seen)
        assert view(ledger, node).quarantines == before


def test_an_administrators_quarantine_takes_the_place_of_healths(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.publish_scan(observe(unhealthy=SICK))
    assert ledger.quarantine(node, uuid(0), "to be replaced", "root") is True
    ledger.publish_scan(observe())
    assert view(ledger, node).quarantines[uuid(0)].reason == "to be replaced"


def test_what_an_administrator_lifts_health_may_set_again(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.publish_scan(observe(unhealthy=SICK))
    assert ledger.unquarantine(node, uuid(0), "root") is True
    assert view(ledger, node).quarantines == {}
    ledger.publish_scan(observe(unhealthy=SICK))
    assert set(view(ledger, node).quarantines) == {uuid(0)}


@pytest.mark.parametrize("record", ["", "[]", "7", "{}", '{"by": "health"', '{"by": ["health"]}'])
def test_a_quarantine_that_cannot_be_read_is_lifted_by_hand_alone(
    ledger: RedisLedger,
    observe: Observe,
    store: Store,
    node: str,
    node_hashes: NodeKeys,
    record: str,
) -> None:
    store.raw_client.hset(node_hashes.quarantine, uuid(0), record)
    for seen in (observe(1), observe(1, unhealthy=SICK)):
        assert ledger.reserve_count(job(1), 1, seen) == TooFewGpus(1, 0, 0, 0, 1, 0)
        assert view(ledger, node).quarantines[uuid(0)].by == "unknown"
    assert ledger.unquarantine(node, uuid(0), "root") is True


def test_an_older_scan_changes_nothing(ledger: RedisLedger, observe: Observe, node: str) -> None:
    ledger.publish_scan(observe())
    ledger.publish_scan(observe(age_s=5, unhealthy=SICK))
    assert view(ledger, node).quarantines == {}
    # Nor is a GPU granted that it found sick.
    old = observe(1, age_s=5, unhealthy=SICK)
    assert ledger.reserve_count(job(1), 1, old) == TooFewGpus(1, 0, 0, 0, 1, 0)
    assert view(ledger, node).quarantines == {}
    ledger.publish_scan(observe(unhealthy=SICK))
    ledger.publish_scan(observe(age_s=5))
    assert ledger.reserve_count(job(1), 1, observe(1, age_s=5)) == TooFewGpus(1, 0, 0, 0, 1, 0)
    assert set(view(ledger, node).quarantines) == {uuid(0)}


@pytest.fixture
def idle_s(ledger: RedisLedger, node: str) -> Callable[[], dict[str, float]]:
    """Release all that the run holds; returns for how long each GPU was idle."""

    def end() -> dict[str, float]:
        released = ledger.release(node, run(1).owner, "end")
        last = ledger.history(node, 0)[-len(released) :]
        return {one.gpu: one.idle_s for one in last}

    return end


@pytest.fixture
def backdate(store: Store, node_hashes: NodeKeys) -> Callable[[float, float], None]:
    """Let the last scan, and the grant of the first GPU, be so many seconds ago."""

    def change(scan_s: float, grant_s: float) -> None:
        now = store_time_ms(store.raw_client)
        store.raw_client.hset(node_hashes.scan, "at", now - int(scan_s * 1000))
        patch_record(
            store.raw_client,
            node_hashes.reservations,
            uuid(0),
            granted_ms=now - int(grant_s * 1000),
        )

    return change


def test_the_time_between_two_scans_that_find_it_unused_is_idle(
    ledger: RedisLedger,
    observe: Observe,
    node: str,
    backdate: Callable[[float, float], None],
    idle_s: Callable[[], dict[str, float]],
) -> None:
    ledger.reserve_count(run(1), 1, observe())
    backdate(100, 1000)
    ledger.publish_scan(observe())
    backdate(50, 1000)
    ledger.reserve_count(job(2), 1, observe())
    # The scans were a few milliseconds apart in truth.
    assert idle_s() == {uuid(0): pytest.approx(150, abs=2)}
    assert ledger.history(node, 0)[-1].granted_at is not None


def test_only_the_time_since_the_grant_is_idle(
    ledger: RedisLedger,
    observe: Observe,
    backdate: Callable[[float, float], None],
    idle_s: Callable[[], dict[str, float]],
) -> None:
    ledger.reserve_count(run(1), 1, observe())
    backdate(100, 20)
    ledger.publish_scan(observe())
    assert idle_s() == {uuid(0): pytest.approx(20, abs=2)}


@pytest.mark.parametrize("first", [{"in_use": (0,)}, {"unknown": (0,)}, {"gpus": 0}, {}])
@pytest.mark.parametrize("second", [{"in_use": (0,)}, {"unknown": (0,)}, {"gpus": 0}, {}])
def test_a_gpu_in_use_or_not_known_is_not_idle(
    ledger: RedisLedger,
    observe: Observe,
    backdate: Callable[[float, float], None],
    idle_s: Callable[[], dict[str, float]],
    first: dict[str, object],
    second: dict[str, object],
) -> None:
    ledger.reserve_count(run(1), 1, observe())
    wait_for_next_ms()
    ledger.publish_scan(observe(**first))
    backdate(100, 100)
    ledger.publish_scan(observe(**second))
    expected = 100 if first == second == {} else 0
    assert idle_s() == {uuid(0): pytest.approx(expected, abs=2)}


def test_an_older_scan_tells_nothing_of_idleness(
    ledger: RedisLedger,
    observe: Observe,
    backdate: Callable[[float, float], None],
    idle_s: Callable[[], dict[str, float]],
) -> None:
    ledger.reserve_count(run(1), 1, observe())
    backdate(100, 1000)
    ledger.publish_scan(observe(age_s=200))
    assert idle_s() == {uuid(0): 0}


def test_what_another_release_knew_of_unused_gpus_may_be_anything(
    ledger: RedisLedger, observe: Observe, store: Store, node_hashes: NodeKeys
) -> None:
    ledger.reserve_count(run(1), 1, observe())
    for odd in ("", "no json", "[1]", "7"):
        store.raw_client.hset(node_hashes.scan, "unused", odd)
        wait_for_next_ms()
        ledger.publish_scan(observe())
        assert store.raw_client.hget(node_hashes.scan, "unused") not in ("", odd)


def test_a_scan_brings_signs_of_life_of_many_owners(
    ledger: RedisLedger, node: str, observe: Observe
) -> None:
    for number in (1, 2, 3):
        ledger.reserve_given(job(number), [uuid(number)], observe())
    ledger.publish_scan(observe(), {job(number).owner for number in (1, 3, 9)})
    renewed = {gpu: one.renewed_at for gpu, one in view(ledger, node).reservations.items()}
    assert renewed[uuid(2)] is None
    assert renewed[uuid(1)] and renewed[uuid(3)]
    # Also with a scan that is older than the one that is there.
    ledger.publish_scan(observe(age_s=60.0), [job(2).owner])
    assert view(ledger, node).reservations[uuid(2)].renewed_at


def test_no_sign_of_life_makes_a_record_of_what_cannot_be_read(
    store: Store, ledger: RedisLedger, node: str, observe: Observe, node_hashes: NodeKeys
) -> None:
    broken = '{"owner": "x", "type": "run"}'
    store.raw_client.hset(node_hashes.reservations, uuid(0), broken)
    ledger.publish_scan(observe(), ["x", "unreadable"])
    assert store.raw_client.hget(node_hashes.reservations, uuid(0)) == broken


def test_a_published_node_is_listed_whatever_became_of_the_list(
    store: Store, ledger: RedisLedger, node: str, observe: Observe
) -> None:
    def listed() -> bool:
        return bool(store.raw_client.sismember("canhazgpu:nodes", node))

    ledger.publish_scan(observe())
    assert listed()
    # Others forget it while this one thinks that it is listed.
    store.ledger().forget_node(node)
    assert not listed()
    ledger.publish_scan(observe())
    assert listed()
    # Of a cluster the list's part alone may lose its memory: the next look sees it.
    store.raw_client.srem("canhazgpu:nodes", node)
    ledger.read_nodes([node])
    ledger.publish_scan(observe())
    assert listed()
    # Whoever died between the scan and the list.
    store.raw_client.srem("canhazgpu:nodes", node)
    store.ledger().publish_scan(observe())
    assert listed()
    ledger.forget_node(node)
    ledger.publish_scan(observe())
    assert listed()
