"""Reservations for a time, signs of life, and records that come back as they were."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from ledger_samples import (
    Observe,
    Store,
    as_told,
    gpus,
    job,
    manual,
    patch_record,
    run,
    store_time_ms,
    uuid,
    view,
    wait_for_next_ms,
)

from canhazgpu.errors import InputError, LimitError
from canhazgpu.ledger.grant_answers import GrantedGpus, TooFewGpus
from canhazgpu.ledger.port import GrantOptions
from canhazgpu.ledger.store.keys import NodeKeys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim
from canhazgpu.node.process_id import ProcessId

AFFINITY = GrantOptions(affinity=True)


def test_a_clock_that_was_set_back_holds_no_gpu_back(
    ledger: RedisLedger,
    store: Store,
    node: str,
    node_hashes: NodeKeys,
    observe: Observe,
) -> None:
    # Given a release and a scan an hour ahead of the store's clock, as it is now
    ledger.reserve_count(run(1), 1, observe(1))
    ledger.release(node, run(1).owner, "run ended")
    ahead = store_time_ms(store.raw_client) + 3600_000
    store.raw_client.hset(node_hashes.released, uuid(0), ahead)
    store.raw_client.hset(node_hashes.scan, "at", ahead)
    # If somebody looks, and looks again
    ledger.publish_scan(observe(1))
    wait_for_next_ms()
    # I expect the GPU to be granted, and the scan to be the new one.
    assert ledger.reserve_count(run(2), 1, observe(1)) == GrantedGpus(gpus(0))
    assert (view(ledger, node).scanned_at or 0) * 1000 < ahead


@pytest.fixture
def expire(store: Store, node_hashes: NodeKeys) -> Callable[[int], float]:
    """Let a reservation have ended just now; returns the end, in seconds."""

    def end(index: int) -> float:
        at = store_time_ms(store.raw_client)
        patch_record(store.raw_client, node_hashes.reservations, uuid(index), expires_ms=at)
        wait_for_next_ms()
        return at / 1000

    return end


@pytest.mark.parametrize(
    "claim",
    [
        job(1),
        run(1),
        manual(1),
        Claim("run:2", "run", "bob"),
        Claim("run:3", "run", "bob", ends_at=1700000000.25, note="", processes=(ProcessId(1, 2),)),
        Claim("run:4", "run", 'b"\\ob\x00\n', job_name="\u2028 é {}[]", note="x" * 200),
    ],
    ids=lambda claim: claim.owner,
)
def test_a_claim_comes_back_as_it_was(
    ledger: RedisLedger, observe: Observe, node: str, claim: Claim
) -> None:
    ledger.reserve_count(claim, 1, observe())
    assert view(ledger, node).reservations[uuid(0)].claim == claim
    # Once more through the scripts' JSON.
    ledger.renew(node, claim.owner)
    assert view(ledger, node).reservations[uuid(0)].claim == claim
    ledger.release(node, claim.owner, "end")
    assert [one.claim for one in ledger.history(node, 0)] == [as_told(claim)] * 2


def test_what_is_empty_is_left_out_of_the_record(
    ledger: RedisLedger, observe: Observe, store: Store, node_hashes: NodeKeys
) -> None:
    ledger.reserve_count(Claim("run:1", "run", "bob"), 1, observe())
    record = json.loads(store.raw_client.hget(node_hashes.reservations, uuid(0)) or "")
    assert set(record) == {"owner", "type", "user", "granted_ms"}


@pytest.mark.parametrize("text", ["\udcff", "a\udc80b", "\ud800"])
def test_bytes_that_are_no_text_stop_no_reservation(
    ledger: RedisLedger, observe: Observe, node: str, text: str
) -> None:
    claim = replace(run(1), note=text, job_name=text)
    seen = observe(unhealthy={1: text})
    assert ledger.reserve_count(claim, 1, seen) == GrantedGpus(gpus(0))
    assert "?" in (view(ledger, node).reservations[uuid(0)].claim.note or "")
    ledger.quarantine(node, uuid(2), text, by=text)
    assert ledger.release(node, claim.owner, text, by=text) == [uuid(0)]
    assert all(ledger.history(node, 0))


@pytest.mark.parametrize(
    "changes",
    [
        {"uid": "me"},
        {"job_name": [1]},
        {"ends_at": math.nan},
        {"ends_at": 10**400},
        {"processes": {}},
        {"processes": [1, None]},
        {"processes": [{"pid": "x", "started": None}]},
        {"note": {"a": math.inf}},
        {"expires_ms": "soon"},
        {"renewed_ms": []},
        {"idle_ms": "much"},
        {"something": "new", "nested": [[], {}]},
    ],
    ids=str,
)
def test_a_detail_of_the_wrong_kind_is_not_known_and_stops_nobody(
    ledger: RedisLedger,
    observe: Observe,
    store: Store,
    node: str,
    node_hashes: NodeKeys,
    changes: dict[str, object],
) -> None:
    ledger.reserve_count(Claim("run:1", "run", "bob"), 1, observe())
    patch_record(store.raw_client, node_hashes.reservations, uuid(0), **changes)
    wait_for_next_ms()
    ledger.publish_scan(observe())
    wait_for_next_ms()
    ledger.publish_scan(observe())
    assert ledger.renew(node, "run:1") == [uuid(0)]
    assert ledger.extend(node, "run:1", 5) == []
    seen = view(ledger, node).reservations[uuid(0)]
    assert (seen.claim, seen.expires_at) == (Claim("run:1", "run", "bob"), None)
    assert ledger.release(node, "run:1", "end") == [uuid(0)]
    assert ledger.history(node, 0)[-1].claim == Claim("run:1", "run", "bob")


def test_a_reservation_for_a_time_ends_by_the_stores_clock(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_count(manual(1, 90.5), 1, observe())
    ledger.reserve_count(run(1), 1, observe())
    seen = view(ledger, node).reservations
    assert seen[uuid(0)].expires_at == pytest.approx(seen[uuid(0)].granted_at + 90.5)
    assert seen[uuid(1)].expires_at is None


def test_what_has_expired_counts_as_released_when_it_expired(
    ledger: RedisLedger, observe: Observe, node: str, expire: Callable[[int], float]
) -> None:
    ledger.reserve_given(manual(1), gpus(0), observe(1))
    ended = expire(0)
    # Nobody has changed anything since.
    assert view(ledger, node).reservations == {}
    assert view(ledger, node).released_at == {uuid(0): ended}
    assert [one.kind for one in ledger.history(node, 0)] == ["grant"]
    # A scan begun before the end does not do, one begun after it does.
    assert ledger.reserve_count(job(1), 1, observe(1, age_s=5)) == TooFewGpus(
        1, 0, 0, 0, 0, stale=1
    )
    assert view(ledger, node).released_at == {uuid(0): ended}
    assert ledger.reserve_count(job(1), 1, observe(1)) == GrantedGpus(gpus(0))
    release = ledger.history(node, 0)[1]
    assert (release.kind, release.reason, release.by) == ("release", "expired", "")
    assert release.at == ended
    assert release.claim == as_told(manual(1))


def test_a_named_gpu_is_granted_right_after_the_end(
    ledger: RedisLedger, observe: Observe, expire: Callable[[int], float]
) -> None:
    ledger.reserve_given(manual(1), gpus(0), observe())
    expire(0)
    assert ledger.reserve_given(job(1), gpus(0), observe()) == GrantedGpus(gpus(0))


def test_the_owner_of_what_has_expired_holds_nothing(
    ledger: RedisLedger, observe: Observe, node: str, expire: Callable[[int], float]
) -> None:
    for operation in (
        lambda: ledger.renew(node, manual(1).owner),
        lambda: ledger.extend(node, manual(1).owner, 60),
        lambda: ledger.release(node, manual(1).owner, "end"),
        lambda: ledger.publish_scan(observe()),
    ):
        ledger.reserve_given(manual(1), gpus(0), observe())
        expire(0)
        assert not operation()
        assert [one.reason for one in ledger.history(node, 0)][-1] == "expired"
        wait_for_next_ms()


def test_an_owner_may_reserve_anew_after_the_end(
    ledger: RedisLedger, observe: Observe, node: str, expire: Callable[[int], float]
) -> None:
    ledger.reserve_given(manual(1), gpus(0), observe())
    expire(0)
    assert ledger.reserve_count(manual(1), 2, observe()) == GrantedGpus(gpus(1, 2))


def test_an_extension_counts_from_the_present_end(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_count(manual(1, 60), 2, observe())
    before = view(ledger, node).reservations
    assert ledger.extend(node, "manual:2", 30) == []
    (longer,) = ledger.extend(node, manual(1).owner, 30, gpus(1, 3))
    assert longer.expires_at == pytest.approx((before[uuid(1)].expires_at or 0) + 30)
    assert view(ledger, node).reservations == {uuid(0): before[uuid(0)], uuid(1): longer}
    assert len(ledger.extend(node, manual(1).owner, 30)) == 2
    extensions = [one for one in ledger.history(node, 0) if one.kind == "extend"]
    assert sorted(one.gpu for one in extensions) == [uuid(0), uuid(1), uuid(1)]


def test_no_extension_leads_beyond_the_latest_end(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_count(manual(1, 60), 1, observe())
    ledger.reserve_given(manual(1, 600), gpus(0, 1), observe())
    before = view(ledger, node).reservations

    with pytest.raises(LimitError, match=r"run\.max_reserve_s"):
        ledger.extend(node, manual(1).owner, 100, longest_s=90)

    assert view(ledger, node).reservations == before
    (longer,) = ledger.extend(node, manual(1).owner, 29, gpus(0), longest_s=90)
    assert longer.expires_at == pytest.approx((before[uuid(0)].expires_at or 0) + 29)


def test_what_has_no_end_is_not_extended(ledger: RedisLedger, observe: Observe, node: str) -> None:
    ledger.reserve_count(run(1), 1, observe())
    assert ledger.extend(node, run(1).owner, 30) == []
    assert view(ledger, node).reservations[uuid(0)].expires_at is None


@pytest.mark.parametrize("duration_s", [0, -1, math.nan, math.inf, 1e12])
def test_what_is_no_duration_is_refused(
    ledger: RedisLedger, observe: Observe, node: str, duration_s: float
) -> None:
    for operation in (
        lambda: ledger.reserve_count(manual(1, duration_s), 1, observe()),
        lambda: ledger.reserve_given(manual(1, duration_s), gpus(0), observe()),
        lambda: ledger.extend(node, manual(1).owner, duration_s),
    ):
        with pytest.raises(InputError, match="no duration; accepted"):
            operation()
    assert view(ledger, node).reservations == {}


def test_a_sign_of_life_is_recorded_with_each_gpu(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_count(run(1), 2, observe())
    ledger.reserve_count(run(2), 1, observe())
    assert view(ledger, node).reservations[uuid(0)].renewed_at is None
    assert ledger.renew(node, run(1).owner) == list(gpus(0, 1))
    seen = view(ledger, node)
    for index in (0, 1):
        renewed_at = seen.reservations[uuid(index)].renewed_at
        assert renewed_at is not None
        assert seen.reservations[uuid(index)].granted_at <= renewed_at <= seen.read_at
    assert seen.reservations[uuid(2)].renewed_at is None
    assert [one.kind for one in ledger.history(node, 0)] == ["grant"] * 3


def test_processes_are_replaced_where_any_are_given(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_count(run(1), 1, observe())
    for given, expected in (
        (None, run(1).processes),
        ([], run(1).processes),
        ([ProcessId(7, 8)], (ProcessId(7, 8),)),
    ):
        assert ledger.renew(node, run(1).owner, given) == [uuid(0)]
        claim = view(ledger, node).reservations[uuid(0)].claim
        assert claim == replace(run(1), processes=expected)


def test_a_lost_reservation_is_not_renewed(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_count(run(1), 1, observe())
    ledger.release(node, run(1).owner, "needed", by="root")
    assert ledger.renew(node, run(1).owner, [ProcessId(1, 2)]) == []
    assert view(ledger, node).reservations == {}
    told = ledger.history(node, 0)[-1]
    assert (told.kind, told.reason, told.by) == ("release", "needed", "root")


def use(ledger: RedisLedger, observe: Observe, claim: Claim, index: int) -> None:
    """Have a GPU, and give it back."""
    ledger.reserve_given(claim, gpus(index), observe())
    ledger.release(observe().scan.node, claim.owner, "end")
    wait_for_next_ms()


def test_with_affinity_the_users_most_recent_come_first(
    ledger: RedisLedger, observe: Observe
) -> None:
    for user, index in (("ann", 0), ("ann", 1), ("bob", 2)):
        use(ledger, observe, run(index, user), index)
    assert ledger.reserve_count(run(7), 1, observe(), AFFINITY) == GrantedGpus(gpus(1))
    assert ledger.reserve_count(run(8), 1, observe(), AFFINITY) == GrantedGpus(gpus(0))
    # Then as for everybody: never used, least recently released.
    assert ledger.reserve_count(run(9), 1, observe(), AFFINITY) == GrantedGpus(gpus(3))
    assert ledger.reserve_count(run(10), 1, observe(), AFFINITY) == GrantedGpus(gpus(2))


def test_affinity_ends_with_the_next_user(ledger: RedisLedger, observe: Observe) -> None:
    use(ledger, observe, run(1, "ann"), 3)
    use(ledger, observe, run(2, "bob"), 3)
    assert ledger.reserve_count(run(3, "ann"), 1, observe(), AFFINITY) == GrantedGpus(gpus(0))
    assert ledger.reserve_count(run(4, "bob"), 1, observe(), AFFINITY) == GrantedGpus(gpus(3))


def test_affinity_knows_what_expired(
    ledger: RedisLedger, observe: Observe, expire: Callable[[int], float]
) -> None:
    ledger.reserve_given(manual(1), gpus(2), observe())
    expire(2)
    assert ledger.reserve_count(manual(2), 1, observe(), AFFINITY) == GrantedGpus(gpus(2))


def test_affinity_takes_no_gpu_that_is_not_fit(ledger: RedisLedger, observe: Observe) -> None:
    use(ledger, observe, run(1), 3)
    seen = observe(in_use=(3,))
    assert ledger.reserve_count(run(2), 1, seen, AFFINITY) == GrantedGpus(gpus(0))


def test_without_affinity_everybody_is_equal(ledger: RedisLedger, observe: Observe) -> None:
    use(ledger, observe, run(1), 0)
    assert ledger.reserve_count(run(2), 1, observe()) == GrantedGpus(gpus(1))


def test_a_node_with_reservations_is_not_forgotten(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    ledger.reserve_count(manual(1), 1, observe())
    with pytest.raises(InputError, match=f"{uuid(0)} is reserved"):
        ledger.forget_node(node)
    assert set(view(ledger, node).reservations) == {uuid(0)}
    assert node in [one.node for one in ledger.read_nodes()]


def test_a_forgotten_node_leaves_nothing(
    ledger: RedisLedger,
    observe: Observe,
    store: Store,
    node: str,
    expire: Callable[[int], float],
) -> None:
    ledger.reserve_count(manual(1), 1, observe())
    ledger.quarantine(node, uuid(1), "old", "root")
    expire(0)
    assert ledger.forget_node(node) is True
    assert node not in [one.node for one in ledger.read_nodes()]
    assert list(store.raw_client.scan_iter(f"*{{{node}}}*")) == []
    assert ledger.forget_node(node) is False
    # It comes back with the next scan.
    ledger.publish_scan(observe())
    assert node in [one.node for one in ledger.read_nodes()]


def test_a_node_of_which_only_the_name_is_left_is_forgotten(
    ledger: RedisLedger, store: Store, node: str
) -> None:
    store.raw_client.sadd("canhazgpu:nodes", node)
    assert ledger.forget_node(node) is True
    assert ledger.forget_node(node) is False
