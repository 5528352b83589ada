"""The store confirms what a node's book opened: once for each number, however late it is asked."""

from __future__ import annotations

import time

import pytest
from ledger_samples import Observe, Store, job, run, share, uuid, view, wait_for_next_ms

from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus
from canhazgpu.ledger.journal_entries import RELEASE, JournalEntry, NumberedEntry
from canhazgpu.ledger.port import Confirmed, GrantSettled, UnconfirmedGrant
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim

TOKEN = "5eed"
GRANTED = Confirmed(None)


def grant(
    number: int, claim: Claim, *gpus: int, settled: int = 0, entries: tuple[NumberedEntry, ...] = ()
) -> UnconfirmedGrant:
    return UnconfirmedGrant(number, settled, claim, tuple(map(uuid, gpus)), TOKEN, entries)


def release(number: int, claim: Claim, of: int | None) -> NumberedEntry:
    entry = JournalEntry(RELEASE, time.time(), claim.owner, reason="undone", grant=of)
    return NumberedEntry(number, entry)


def owners(ledger: RedisLedger, node: str) -> dict[str, list[str]]:
    found = view(ledger, node).reservations
    return {gpu: [one.claim.owner for one in held.holders] for gpu, held in found.items()}


def test_a_number_is_granted_once(ledger: RedisLedger, node: str, observe: Observe) -> None:
    opened = grant(1, job(1), 0, 2)
    assert ledger.confirm(node, opened, observe()) == GRANTED
    assert ledger.confirm(node, opened, observe()) == GRANTED
    assert owners(ledger, node) == {uuid(0): [job(1).owner], uuid(2): [job(1).owner]}
    assert [one.kind for one in ledger.history(node, 0.0)] == ["grant", "grant"]


def test_the_store_names_who_is_in_the_way(
    ledger: RedisLedger, node: str, observe: Observe
) -> None:
    assert isinstance(ledger.reserve_given(run(7), [uuid(1)], observe()), GrantedGpus)
    outcome = ledger.confirm(node, grant(1, job(1), 0, 1), observe()).outcome
    assert isinstance(outcome, BlockedGpu)
    assert (outcome.gpu, outcome.why) == (uuid(1), "reserved")
    assert outcome.holder is not None and outcome.holder.claim.owner == run(7).owner
    assert owners(ledger, node) == {uuid(1): [run(7).owner]}


@pytest.mark.parametrize(
    ("seen", "why"), [({"in_use": (0,)}, "unreserved"), ({"unknown": (0,)}, "unknown")]
)
def test_the_scan_decides_too(
    ledger: RedisLedger, node: str, observe: Observe, seen: dict[str, tuple[int]], why: str
) -> None:
    outcome = ledger.confirm(node, grant(1, job(1), 0), observe(**seen)).outcome
    assert isinstance(outcome, BlockedGpu) and outcome.why == why


def test_a_refused_number_stays_refused(ledger: RedisLedger, node: str, observe: Observe) -> None:
    ledger.reserve_given(run(7), [uuid(0)], observe())
    opened = grant(3, job(1), 0)
    assert isinstance(ledger.confirm(node, opened, observe()).outcome, BlockedGpu)
    ledger.release(node, run(7).owner, "end")
    assert isinstance(ledger.confirm(node, opened, observe()).outcome, GrantSettled)
    assert owners(ledger, node) == {}


def test_an_undone_number_stays_refused(ledger: RedisLedger, node: str, observe: Observe) -> None:
    ledger.record_entries(node, TOKEN, [release(2, job(1), of=1)])
    assert isinstance(ledger.confirm(node, grant(1, job(1), 0), observe()).outcome, GrantSettled)


def test_an_undone_grant_is_released_by_its_number(
    ledger: RedisLedger, node: str, observe: Observe
) -> None:
    ledger.confirm(node, grant(1, job(1), 0), observe())
    ledger.record_entries(node, TOKEN, [release(2, job(1), of=1)])
    assert owners(ledger, node) == {}
    ledger.confirm(node, grant(3, job(1), 1, settled=2), observe())
    # The same owner has another grant since; the late release is not for it.
    ledger.record_entries(node, TOKEN, [release(4, job(1), of=1)])
    assert owners(ledger, node) == {uuid(1): [job(1).owner]}


def test_what_is_settled_is_not_granted_after_its_answer_is_forgotten(
    store: Store, node: str, observe: Observe
) -> None:
    ledger = store.ledger()
    ledger.record_entries(node, TOKEN, [release(5, job(1), of=4)])
    assert ledger.confirm(node, grant(6, job(2), 1, settled=5), observe()) == GRANTED
    outcome = ledger.confirm(node, grant(4, job(1), 0), observe()).outcome
    assert outcome == GrantSettled(5)


def test_earlier_entries_come_first(ledger: RedisLedger, node: str, observe: Observe) -> None:
    ledger.confirm(node, grant(1, job(1), 0), observe())
    entries = (release(2, job(1), of=1),)
    seen = observe()
    assert ledger.confirm(node, grant(3, job(2), 1, entries=entries), seen) == GRANTED
    wait_for_next_ms()
    assert ledger.confirm(node, grant(4, job(3), 0, settled=3), observe()) == GRANTED
    assert owners(ledger, node) == {uuid(1): [job(2).owner], uuid(0): [job(3).owner]}


def test_another_journal_has_its_own_numbers(
    ledger: RedisLedger, node: str, observe: Observe
) -> None:
    ledger.confirm(node, grant(1, job(1), 0), observe())
    other = UnconfirmedGrant(1, 0, job(2), (uuid(1),), "0ther")
    assert ledger.confirm(node, other, observe()) == GRANTED
    assert owners(ledger, node) == {uuid(0): [job(1).owner], uuid(1): [job(2).owner]}


def test_shares_are_confirmed_together(ledger: RedisLedger, node: str, observe: Observe) -> None:
    assert ledger.confirm(node, grant(1, share(1), 0), observe()) == GRANTED
    assert ledger.confirm(node, grant(2, share(2), 0), observe()) == GRANTED
    assert isinstance(ledger.confirm(node, grant(3, job(3), 0), observe()).outcome, BlockedGpu)
    assert owners(ledger, node) == {uuid(0): [share(1).owner, share(2).owner]}


def test_what_the_owner_holds_already_gets_the_new_number(
    ledger: RedisLedger, node: str, observe: Observe
) -> None:
    ledger.reserve_given(job(1), [uuid(0)], observe())
    assert ledger.confirm(node, grant(1, job(1), 0), observe()) == GRANTED
    ledger.record_entries(node, TOKEN, [release(2, job(1), of=1)])
    assert owners(ledger, node) == {}
