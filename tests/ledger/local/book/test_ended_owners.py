"""Whose reservations a node has released: one user cannot have it forget another's."""

from __future__ import annotations

import json
from dataclasses import replace

from ledger_samples import manual

from canhazgpu.ledger.local.book.book import Book
from canhazgpu.ledger.local.book.book_clock import BookClock
from canhazgpu.ledger.local.book.ended_owners import (
    MAX_ENDED,
    MAX_PER_USER,
    EndedOwner,
    EndedOwners,
    with_ended,
)
from canhazgpu.ledger.local.book.saved_book import SavedBook, saved_from_bytes, saved_to_bytes
from canhazgpu.ledger.values import Reservation

NOW, FAR = 1000.0, 1e9


def released(ended: EndedOwners, number: int, uid: int, ends: float) -> EndedOwners:
    claim = replace(manual(number), uid=uid)
    held = [Reservation("GPU-a", claim, NOW - 1, expires_at=ends)]
    return with_ended(ended, claim.owner, held, NOW, is_revoked=False)


def test_one_user_who_releases_again_and_again_pushes_out_nobody_else() -> None:
    ended = released({}, 0, 1, NOW + 60)
    for number in range(1, 4 * MAX_ENDED):
        ended = released(ended, number, 2, FAR + number)

    assert manual(0).owner in ended
    own = {owner for owner, one in ended.items() if one.uid == 2}
    assert own == {manual(4 * MAX_ENDED - 1 - back).owner for back in range(MAX_PER_USER)}


def test_many_users_together_have_a_limit_too() -> None:
    ended: EndedOwners = {}
    for number in range(2 * MAX_ENDED):
        ended = released(ended, number, number, FAR + number)

    assert len(ended) == MAX_ENDED


def test_what_was_released_just_now_is_always_remembered() -> None:
    ended: EndedOwners = {}
    for number in range(MAX_PER_USER):
        ended = released(ended, number, 2, FAR + number)

    assert manual(99).owner in released(ended, 99, 2, NOW + 1)


def test_a_book_of_an_earlier_release_has_no_users() -> None:
    book = Book(ended={"manual:1": EndedOwner(FAR, 7)})
    data = json.loads(
        saved_to_bytes(SavedBook(book, "j", 0, BookClock(0.0), is_of_boot=True), "n1", "b")
    )
    assert saved_from_bytes(json.dumps(data).encode(), "n1", "b", 0.0).book.ended == book.ended

    del data["ended_uids"]

    (old,) = saved_from_bytes(json.dumps(data).encode(), "n1", "b", 0.0).book.ended.values()
    assert old == EndedOwner(FAR)
