"""What was granted and given back unused leaves no trace in release times, the order, and hours."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ledger_samples import Observe, gpus, job, run, uuid, view, wait_for_next_ms

from canhazgpu.ledger.grant_answers import GrantedGpus
from canhazgpu.ledger.journal_entries import GRANT, RELEASE, JournalEntry, NumberedEntry
from canhazgpu.ledger.local.book.book import Book
from canhazgpu.ledger.port import GrantOptions
from canhazgpu.ledger.release_reasons import (
    ANOTHER_JOB_RUNS,
    COMMAND_NOT_STARTED,
    GAVE_UP,
    HELD_BY_NODES_BOOK,
    IN_USE_AT_SECOND_LOOK,
)
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.report.held_time import TimeSpan, held_times

UNUSED = [
    IN_USE_AT_SECOND_LOOK, HELD_BY_NODES_BOOK, ANOTHER_JOB_RUNS, GAVE_UP, COMMAND_NOT_STARTED,
]  # fmt: skip


def use_in_turn(ledger: RedisLedger, observe: Observe, node: str) -> None:
    """Ann uses all four GPUs, and releases them one after the other: 2, 0, 3, 1."""
    for index in (2, 0, 3, 1):
        claim = replace(run(index), user="ann")
        ledger.reserve_given(claim, gpus(index), observe())
    for index in (2, 0, 3, 1):
        ledger.release(node, run(index).owner, "run ended")
        wait_for_next_ms()


@pytest.mark.parametrize("reason", UNUSED)
def test_release_times_and_the_order_of_grants_survive(
    ledger: RedisLedger, observe: Observe, node: str, reason: str
) -> None:
    use_in_turn(ledger, observe, node)
    before = view(ledger, node).released_at

    for _ in range(3):
        granted = ledger.reserve_count(replace(run(9), user="bob"), 3, observe())
        assert granted == GrantedGpus(gpus(0, 2, 3))
        assert sorted(ledger.release(node, run(9).owner, reason)) == sorted(gpus(0, 2, 3))
        wait_for_next_ms()

    assert view(ledger, node).released_at == before
    assert view(ledger, node).reservations == {}
    # Affinity knows who really had them.
    options = GrantOptions(affinity=True)
    claim = replace(run(10), user="ann")
    assert ledger.reserve_count(claim, 1, observe(), options) == GrantedGpus(gpus(1))


@pytest.mark.parametrize(("reason", "by"), [("run ended", ""), (GAVE_UP, "root")])
def test_what_was_used_or_taken_by_somebody_counts(
    ledger: RedisLedger, observe: Observe, node: str, reason: str, by: str
) -> None:
    use_in_turn(ledger, observe, node)
    before = view(ledger, node).released_at
    ledger.reserve_count(run(9), 1, observe())
    ledger.release(node, run(9).owner, reason, by=by)
    after = view(ledger, node).released_at
    assert after[uuid(2)] > before[uuid(2)]
    assert {**after, uuid(2): 0.0} == {**before, uuid(2): 0.0}


def test_it_counts_no_hours(ledger: RedisLedger, observe: Observe, node: str) -> None:
    ledger.reserve_count(run(1), 2, observe())
    ledger.release(node, run(1).owner, IN_USE_AT_SECOND_LOOK)
    ledger.reserve_count(run(2), 1, observe())
    ledger.release(node, run(2).owner, "run ended")

    found = held_times(view(ledger, node), ledger.history(node, 0), TimeSpan(0.0, 1e12))

    assert [one.owner for one in found] == [run(2).owner]
    # The history has both: waiters wait for it, and people ask.
    assert sum(one.kind == "release" for one in ledger.history(node, 0)) == 3


def test_a_nodes_journal_and_book_keep_release_times_too(
    ledger: RedisLedger, observe: Observe, node: str
) -> None:
    use_in_turn(ledger, observe, node)
    before = view(ledger, node).released_at
    now = view(ledger, node).read_at
    entries = [
        JournalEntry(GRANT, now, job(1).owner, gpus(0, 1), job(1)),
        JournalEntry(RELEASE, now, job(1).owner, reason=IN_USE_AT_SECOND_LOOK),
    ]

    ledger.record_entries(
        node, "journal", [NumberedEntry(number, one) for number, one in enumerate(entries, 1)]
    )
    book = Book(released_at=before)
    for entry in entries:
        book = book.with_entry(entry)

    assert view(ledger, node).released_at == before
    assert (book.released_at, book.reservations) == (before, {})
    book = book.with_entry(entries[0])
    book = book.with_entry(replace(entries[1], reason="job ended", at=now + 9))
    assert book.released_at[uuid(0)] == now + 9
