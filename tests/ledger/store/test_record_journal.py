"""What a node did alone comes into the store once, in order, and in favour of running jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from ledger_samples import Store, as_told, job, observation, uuid, view

from canhazgpu.ledger.grant_answers import GrantedGpus
from canhazgpu.ledger.journal_entries import (
    GRANT,
    HEALTH,
    PROLOG,
    QUARANTINE,
    RELEASE,
    UNQUARANTINE,
    JournalEntry,
    NumberedEntry,
    OverruledReservation,
)
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim

TOKEN = "5eed"


def grant(number: int, *gpus: int, ago_s: float = 60.0, **more: object) -> JournalEntry:
    claim = job(number)
    named = tuple(map(uuid, gpus))
    return JournalEntry(GRANT, time.time() - ago_s, claim.owner, named, claim, "alone", **more)  # type: ignore[arg-type]


def release(number: int, *gpus: int, ago_s: float = 30.0) -> JournalEntry:
    named = tuple(map(uuid, gpus))
    return JournalEntry(RELEASE, time.time() - ago_s, job(number).owner, named, reason="job ended")


def numbered(*entries: JournalEntry, first: int = 1) -> list[NumberedEntry]:
    return [NumberedEntry(number, entry) for number, entry in enumerate(entries, first)]


def held(ledger: RedisLedger, node: str) -> dict[str, str]:
    return {gpu: one.claim.owner for gpu, one in view(ledger, node).reservations.items()}


def told(ledger: RedisLedger, node: str) -> list[tuple[str, str]]:
    return [
        (one.kind, one.claim.job_id or one.claim.user if one.claim else one.gpu)
        for one in ledger.history(node, 0.0)
    ]


def test_a_grant_is_there_with_the_time_it_was_made(ledger: RedisLedger, node: str) -> None:
    entry = grant(1, 0, 2)
    assert ledger.record_entries(node, TOKEN, numbered(entry)) == []
    found = view(ledger, node).reservations
    assert found.keys() == {uuid(0), uuid(2)}
    for one in found.values():
        assert one.claim == job(1)
        assert abs(one.granted_at - entry.at) < 0.01
    events = ledger.history(node, 0.0)
    assert [(one.kind, one.reason) for one in events] == [("grant", "alone")] * 2
    assert all(abs(one.at - entry.at) < 0.01 for one in events)


def test_whatever_is_told_twice_counts_once(ledger: RedisLedger, node: str) -> None:
    entries = numbered(grant(1, 0), release(1), grant(2, 0), JournalEntry(PROLOG, time.time()))
    for _ in range(3):
        ledger.record_entries(node, TOKEN, entries)
    ledger.record_entries(node, TOKEN, entries[2:])
    assert held(ledger, node) == {uuid(0): job(2).owner}
    assert sorted(kind for kind, _ in told(ledger, node)) == ["grant", "grant", "prolog", "release"]


def test_a_part_of_them_may_be_known_already(ledger: RedisLedger, node: str) -> None:
    entries = numbered(grant(1, 0), grant(2, 1), grant(3, 2))
    ledger.record_entries(node, TOKEN, entries[:2])
    ledger.release(node, job(1).owner, "by root", by="root")
    ledger.record_entries(node, TOKEN, entries)
    # What has been taken over and undone since is not done again.
    assert held(ledger, node) == {uuid(1): job(2).owner, uuid(2): job(3).owner}


def test_another_journal_begins_anew(ledger: RedisLedger, node: str) -> None:
    ledger.record_entries(node, TOKEN, numbered(grant(1, 0), grant(2, 1)))
    ledger.record_entries(node, "other", numbered(release(1)))
    assert held(ledger, node) == {uuid(1): job(2).owner}
    for _ in range(2):
        ledger.record_entries(
            node, "", numbered(JournalEntry(HEALTH, time.time(), reason="x"), first=0)
        )
    assert [kind for kind, _ in told(ledger, node)].count("health") == 2
    # That of no journal changed nothing about the journal's.
    ledger.record_entries(node, "other", numbered(grant(1, 0)))
    assert held(ledger, node) == {uuid(1): job(2).owner}


def test_the_running_job_has_the_gpu_and_the_other_loses_it(ledger: RedisLedger, node: str) -> None:
    run = Claim("run:a", "run", "eve", 1002)
    ledger.reserve_given(run, [uuid(0), uuid(1)], observation(node))
    (overruled,) = ledger.record_entries(node, TOKEN, numbered(grant(1, 0)))
    assert overruled == OverruledReservation(
        uuid(0), replace(overruled.before, gpu=uuid(0)), job(1).owner, "ann"
    )
    assert overruled.before.claim == run
    assert held(ledger, node) == {uuid(0): job(1).owner, uuid(1): "run:a"}
    (lost,) = [one for one in ledger.history(node, 0.0) if one.kind == "release"]
    assert lost.claim == run and lost.reason == "a job that runs on the node has it"


def test_a_job_that_is_over_takes_nothing_from_anybody_but_is_in_the_history(
    ledger: RedisLedger, node: str
) -> None:
    run = Claim("run:a", "run", "eve", 1002)
    ledger.reserve_given(run, [uuid(0)], observation(node))
    assert ledger.record_entries(node, TOKEN, numbered(grant(1, 0, 1), release(1))) == []
    assert held(ledger, node) == {uuid(0): "run:a"}
    mine = [one for one in told(ledger, node) if one[1] == "1"]
    assert mine == [*[("grant", "1")] * 2, *[("release", "1")] * 2]


def test_a_job_that_gave_back_a_part_keeps_the_rest(ledger: RedisLedger, node: str) -> None:
    ledger.record_entries(node, TOKEN, numbered(grant(1, 0, 1), release(1, 1)))
    assert held(ledger, node) == {uuid(0): job(1).owner}


def test_what_the_owner_has_besides_is_released(ledger: RedisLedger, node: str) -> None:
    """The store had granted, and nobody heard of it."""
    ledger.reserve_given(job(1), [uuid(3)], observation(node))
    ledger.record_entries(node, TOKEN, numbered(grant(1, 0)))
    assert held(ledger, node) == {uuid(0): job(1).owner}


def test_what_the_owner_has_already_is_no_news(ledger: RedisLedger, node: str) -> None:
    ledger.reserve_given(job(1), [uuid(0)], observation(node))
    before = view(ledger, node).reservations
    ledger.record_entries(node, TOKEN, numbered(grant(1, 0)))
    assert view(ledger, node).reservations == before
    assert told(ledger, node) == [("grant", "1")]


def test_a_reservation_for_a_time_comes_back_with_its_end_and_yields(
    ledger: RedisLedger, node: str
) -> None:
    manual = Claim("manual:a", "manual", "eve", 1002, duration_s=3600)
    ends = time.time() + 600
    back = JournalEntry(
        GRANT,
        time.time() - 3000,
        manual.owner,
        (uuid(0), uuid(1)),
        manual,
        expires_at=ends,
        yields=True,
    )
    ledger.reserve_given(job(1), [uuid(0)], observation(node))
    assert ledger.record_entries(node, TOKEN, numbered(back)) == []
    assert held(ledger, node) == {uuid(0): job(1).owner, uuid(1): "manual:a"}
    assert abs((view(ledger, node).reservations[uuid(1)].expires_at or 0) - ends) < 0.01


def test_quarantines_by_their_own_rules(ledger: RedisLedger, node: str) -> None:
    on = JournalEntry(QUARANTINE, time.time(), gpus=(uuid(0),), reason="memory stays", by="epilog")
    off = JournalEntry(UNQUARANTINE, time.time(), gpus=(uuid(0),), by="health check")
    ledger.record_entries(node, TOKEN, numbered(on, on))
    assert view(ledger, node).quarantines[uuid(0)].by == "epilog"
    ledger.record_entries(node, TOKEN, numbered(off, off, first=3))
    assert view(ledger, node).quarantines == {}
    assert [kind for kind, _ in told(ledger, node)] == ["quarantine", "unquarantine"]


def test_a_note_tells_all_it_was_given(ledger: RedisLedger, node: str) -> None:
    facts = {"outcome": "granted", "took_s": 0.041, "seen": [{"gpu": uuid(0), "used_mb": 4}]}
    note = JournalEntry(
        PROLOG, time.time() - 5, job(1).owner, claim=job(1), reason="r", facts=facts
    )
    ledger.record_entries(node, TOKEN, numbered(note))
    (event,) = ledger.history(node, 0.0)
    assert (event.kind, event.claim, event.reason, event.facts) == (
        PROLOG,
        as_told(job(1)),
        "r",
        facts,
    )
    assert abs(event.at - note.at) < 0.01


def test_no_time_is_in_the_future(ledger: RedisLedger, node: str) -> None:
    """A node's idea of the store's clock may be wrong."""
    ledger.record_entries(node, TOKEN, numbered(grant(1, 0, ago_s=-3600.0)))
    (event,) = ledger.history(node, 0.0)
    assert event.at <= view(ledger, node).read_at


@pytest.mark.parametrize("text", ["", "garbage", "5eed", "5eed x", "5eed 1 2"])
def test_a_garbled_memory_of_what_was_taken_over_is_none(
    ledger: RedisLedger, store: Store, node: str, text: str
) -> None:
    from canhazgpu.ledger.store.keys import node_keys

    store.raw_client.set(node_keys(node).recorded, text)
    ledger.record_entries(node, TOKEN, numbered(grant(1, 0)))
    assert held(ledger, node) == {uuid(0): job(1).owner}


def test_an_expired_or_unreadable_reservation_in_the_way(
    ledger: RedisLedger, store: Store, node: str
) -> None:
    from canhazgpu.ledger.store.keys import node_keys

    store.raw_client.hset(node_keys(node).reservations, uuid(0), "garbage")
    (overruled,) = ledger.record_entries(node, TOKEN, numbered(grant(1, 0)))
    assert overruled.before.claim.owner == "unreadable"
    assert held(ledger, node) == {uuid(0): job(1).owner}


def test_a_repeated_answer_is_known_as_such_afterwards(ledger: RedisLedger, node: str) -> None:
    ledger.record_entries(node, TOKEN, numbered(grant(1, 0, 1)))
    answer = ledger.reserve_given(job(1), [uuid(0), uuid(1)], observation(node))
    assert answer == GrantedGpus((uuid(0), uuid(1)), repeated=True)


def test_many_entries_at_once(ledger: RedisLedger, node: str) -> None:
    entries: Sequence[JournalEntry] = [
        entry for number in range(100) for entry in (grant(number, 0), release(number))
    ]
    ledger.record_entries(node, TOKEN, numbered(*entries))
    assert held(ledger, node) == {}
    assert len(told(ledger, node)) == 200
