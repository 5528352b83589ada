"""Several jobs on one GPU, by shares: who may come beside whom, and when the GPU is free again."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from ledger_samples import (
    Observe,
    Store,
    as_told,
    job,
    manual,
    run,
    share,
    uuid,
    view,
    wait_for_next_ms,
)

from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus, TooFewGpus
from canhazgpu.ledger.journal_entries import GRANT, RELEASE, JournalEntry, NumberedEntry
from canhazgpu.ledger.record_json import UNREADABLE_OWNER
from canhazgpu.ledger.store.keys import NodeKeys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim

GPU = uuid(0)
FIRST, SECOND, THIRD = share(1), share(2, user="bob"), share(3)


def reserve(ledger: RedisLedger, observe: Observe, claim: Claim, **seen: object) -> object:
    wait_for_next_ms()
    return ledger.reserve_given(claim, [GPU], observe(**seen))


def owners(ledger: RedisLedger, node: str, gpu: str = GPU) -> list[str]:
    held = view(ledger, node).reservations.get(gpu)
    return [one.claim.owner for one in held.holders] if held else []


@pytest.fixture
def shared(ledger: RedisLedger, observe: Observe) -> RedisLedger:
    """A ledger in which two jobs share a GPU."""
    for claim in (FIRST, SECOND):
        assert reserve(ledger, observe, claim) == GrantedGpus((GPU,))
    return ledger


def test_jobs_with_shares_hold_a_gpu_together(shared: RedisLedger, node: str) -> None:
    held = view(shared, node).reservations[GPU]
    assert [one.claim for one in held.holders] == [FIRST, SECOND]
    assert held.holders[0].granted_at < held.holders[1].granted_at


def test_a_repeated_request_changes_nothing(
    shared: RedisLedger, node: str, observe: Observe
) -> None:
    def granted() -> list[tuple[str, float]]:
        held = view(shared, node).reservations[GPU]
        return [(one.claim.owner, one.granted_at) for one in held.holders]

    before = granted()
    assert reserve(shared, observe, SECOND) == GrantedGpus((GPU,), repeated=True)
    assert granted() == before


@pytest.mark.parametrize("other", [job(9), run(9), manual(9), share(9, "mps")])
def test_nobody_else_gets_a_shared_gpu(
    shared: RedisLedger, node: str, observe: Observe, other: Claim
) -> None:
    answer = reserve(shared, observe, other)
    assert isinstance(answer, BlockedGpu)
    assert answer.why == "reserved" and answer.holder is not None
    assert [one.claim for one in answer.holder.holders] == [FIRST, SECOND]
    wait_for_next_ms()
    assert shared.reserve_count(other, 4, observe(4)) == TooFewGpus(4, 3, 1, 0, 0, 0)


@pytest.mark.parametrize("first", [job(9), run(9), manual(9), share(9, "mps")])
def test_no_share_of_a_gpu_that_is_held_otherwise(
    ledger: RedisLedger, node: str, observe: Observe, first: Claim
) -> None:
    reserve(ledger, observe, first)
    answer = reserve(ledger, observe, FIRST)
    assert isinstance(answer, BlockedGpu) and answer.why == "reserved"
    assert owners(ledger, node) == [first.owner]


def test_the_gpu_is_free_when_the_last_is_gone(
    shared: RedisLedger, node: str, observe: Observe
) -> None:
    assert shared.release(node, FIRST.owner, "end") == [GPU]
    assert owners(shared, node) == [SECOND.owner]
    assert view(shared, node).released_at == {}
    assert isinstance(reserve(shared, observe, job(9)), BlockedGpu)
    wait_for_next_ms()
    before = int(view(shared, node).read_at * 1000) / 1000
    assert shared.release(node, SECOND.owner, "end") == [GPU]
    assert view(shared, node).released_at[GPU] >= before
    assert reserve(shared, observe, job(9)) == GrantedGpus((GPU,))


def test_the_history_tells_of_each_job_and_its_share(shared: RedisLedger, node: str) -> None:
    shared.release(node, FIRST.owner, "end")
    shared.release(node, SECOND.owner, "end")
    events = shared.history(node, 0.0)
    assert [(one.kind, one.claim) for one in events] == [
        ("grant", as_told(FIRST)),
        ("grant", as_told(SECOND)),
        ("release", as_told(FIRST)),
        ("release", as_told(SECOND)),
    ]
    assert all(one.granted_at for one in events)


def test_use_by_a_co_holder_is_no_obstacle_while_it_holds_its_share(
    shared: RedisLedger, node: str, observe: Observe
) -> None:
    seen = {"in_use": (0,), "covered": {0: (FIRST.owner,)}}
    shared.release(node, FIRST.owner, "end")
    answer = reserve(shared, observe, THIRD, **seen)
    assert isinstance(answer, BlockedGpu) and answer.why == "unreserved"
    reserve(shared, observe, FIRST)
    assert reserve(shared, observe, THIRD, **seen) == GrantedGpus((GPU,))


def test_use_by_somebody_else_is_an_obstacle(shared: RedisLedger, observe: Observe) -> None:
    answer = reserve(shared, observe, THIRD, in_use=(0,))
    assert isinstance(answer, BlockedGpu) and answer.why == "unreserved"


def test_covered_use_does_not_help_a_claim_of_the_whole_gpu(
    ledger: RedisLedger, observe: Observe
) -> None:
    answer = reserve(ledger, observe, job(9), in_use=(0,), covered={0: ()})
    assert isinstance(answer, BlockedGpu) and answer.why == "unreserved"
    assert reserve(ledger, observe, FIRST, in_use=(0,), covered={0: ()}) == GrantedGpus((GPU,))


def test_a_quarantined_gpu_gets_no_further_job(
    shared: RedisLedger, node: str, observe: Observe
) -> None:
    shared.quarantine(node, GPU, "fan", "root")
    answer = reserve(shared, observe, THIRD)
    assert isinstance(answer, BlockedGpu) and answer.why == "quarantined"
    assert owners(shared, node) == [FIRST.owner, SECOND.owner]


def test_a_sign_of_life_is_recorded_for_its_own_job(
    shared: RedisLedger, node: str, observe: Observe
) -> None:
    assert shared.renew(node, SECOND.owner) == [GPU]
    first, second = view(shared, node).reservations[GPU].holders
    assert first.renewed_at is None and second.renewed_at is not None
    shared.publish_scan(observe(), {FIRST.owner})
    first, _ = view(shared, node).reservations[GPU].holders
    assert first.renewed_at is not None


def test_shares_have_no_end_to_extend(shared: RedisLedger, node: str) -> None:
    assert shared.extend(node, FIRST.owner, 60.0) == []


def test_each_jobs_idle_time_is_counted(shared: RedisLedger, node: str, observe: Observe) -> None:
    shared.publish_scan(observe())
    time.sleep(0.05)
    shared.publish_scan(observe())
    assert all(one.idle_s >= 0.04 for one in view(shared, node).reservations[GPU].holders)
    shared.release(node, FIRST.owner, "end")
    assert shared.history(node, 0.0)[-1].idle_s >= 0.04


def test_a_release_that_does_not_know_shares_reads_one_owner_of_a_shared_gpu(
    shared: RedisLedger, store: Store, node: str, node_hashes: NodeKeys
) -> None:
    record = json.loads(store.raw_client.hget(node_hashes.reservations, GPU) or "")
    assert {name: record[name] for name in ("owner", "type", "user")} == {
        "owner": "shared",
        "type": "job",
        "user": "ann,bob",
    }
    assert isinstance(record["granted_ms"], int)
    shared.release(node, FIRST.owner, "end")
    record = json.loads(store.raw_client.hget(node_hashes.reservations, GPU) or "")
    assert record["owner"] == SECOND.owner and "holders" not in record


@pytest.mark.parametrize(
    "holders",
    [None, 7, [], {}, {"a": 1}, [None], ["x"], [7, 8], [{"owner": "job:c1:1:0"}], [[]]],
    ids=str,
)
def test_a_shared_record_that_cannot_be_read_is_nobodys_and_reserved(
    ledger: RedisLedger,
    store: Store,
    node: str,
    node_hashes: NodeKeys,
    observe: Observe,
    holders: object,
) -> None:
    text = json.dumps(
        {"owner": "shared", "type": "slurm", "user": "a", "granted_ms": 1, "holders": holders}
    )
    store.raw_client.hset(node_hashes.reservations, GPU, text)
    assert owners(ledger, node) == [UNREADABLE_OWNER]
    for claim in (FIRST, job(9)):
        assert isinstance(reserve(ledger, observe, claim), BlockedGpu)
    ledger.publish_scan(observe(), {FIRST.owner})
    assert ledger.release(node, UNREADABLE_OWNER, "by root") == [GPU]


def entry(claim: Claim, *, yields: bool = False) -> JournalEntry:
    return JournalEntry(GRANT, time.time() - 60, claim.owner, (GPU,), claim, "alone", yields=yields)


def record(ledger: RedisLedger, node: str, *entries: JournalEntry) -> list[str]:
    numbered = [NumberedEntry(number, one) for number, one in enumerate(entries, 1)]
    return [one.before.claim.owner for one in ledger.record_entries(node, "", numbered)]


def test_what_the_node_granted_alone_comes_beside_other_shares(
    shared: RedisLedger, node: str
) -> None:
    assert record(shared, node, entry(THIRD), entry(THIRD)) == []
    assert owners(shared, node) == [FIRST.owner, SECOND.owner, THIRD.owner]
    gone = JournalEntry(RELEASE, time.time(), FIRST.owner, reason="job ended")
    assert record(shared, node, gone) == []
    assert owners(shared, node) == [SECOND.owner, THIRD.owner]


def test_a_job_that_runs_alone_on_a_shared_gpu_overrules_all_others(
    shared: RedisLedger, node: str
) -> None:
    assert record(shared, node, entry(job(9), yields=True)) == []
    assert owners(shared, node) == [FIRST.owner, SECOND.owner]
    assert record(shared, node, entry(job(9))) == [FIRST.owner, SECOND.owner]
    assert owners(shared, node) == [job(9).owner]


def test_a_share_that_runs_overrules_whoever_holds_the_gpu_alone(
    ledger: RedisLedger, node: str, observe: Observe
) -> None:
    reserve(ledger, observe, run(9))
    assert record(ledger, node, entry(FIRST), entry(SECOND)) == [run(9).owner]
    assert owners(ledger, node) == [FIRST.owner, SECOND.owner]


def test_a_share_of_unreadable_kind_counts_as_the_whole_gpu(
    ledger: RedisLedger, node: str, observe: Observe, store: Store, node_hashes: NodeKeys
) -> None:
    reserve(ledger, observe, FIRST)
    text = store.raw_client.hget(node_hashes.reservations, GPU) or ""
    store.raw_client.hset(
        node_hashes.reservations, GPU, json.dumps(json.loads(text) | {"share": "a half"})
    )
    assert view(ledger, node).reservations[GPU].claim == replace(FIRST, share=None)
    answer = reserve(ledger, observe, SECOND)
    assert isinstance(answer, BlockedGpu) and answer.why == "reserved"
