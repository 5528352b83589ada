"""The node's book as the content of its file; pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from canhazgpu.ledger.journal_entries import seconds_of
from canhazgpu.ledger.local.book.book import Book, is_job_owner
from canhazgpu.ledger.local.book.book_clock import BookClock, clock_from_dict, clock_to_dict
from canhazgpu.ledger.local.book.ended_owners import EndedOwner
from canhazgpu.ledger.local.book.intent import intent_from_dict, intent_to_dict
from canhazgpu.ledger.record_json import reservation_from_json, reservation_to_json
from canhazgpu.ledger.values import Quarantine

FORMAT = 1


class NewerFormError(Exception):
    """The book is of a form that a later release has; the text continues a sentence about it."""


class SavedBook(NamedTuple):
    """The book of a file; `last` is the last number given out in the journal with the token.

    `clock` is this boot's; of an earlier boot's book it is the machine's own. `is_of_boot` is
    whether it was written in this boot. `kept` is the digest of what outlasts a reboot, as it was
    last written; a release that knows nothing of it writes none.
    """

    book: Book
    token: str
    last: int
    clock: BookClock
    is_of_boot: bool = True
    kept: str = ""


def saved_to_bytes(saved: SavedBook, node: str, boot_id: str | None) -> bytes:
    """Return the content of the file."""
    book = saved.book
    data = {
        "format": FORMAT,
        "node": node,
        "boot_id": boot_id,
        "journal": saved.token,
        "applied": saved.last,
        "kept": saved.kept,
        **clock_to_dict(saved.clock),
        # Two lists: the release that knows jobs alone takes people's reservations from the store.
        "own": sorted(filter(is_job_owner, book.own_owners)),
        "own_people": sorted(one for one in book.own_owners if not is_job_owner(one)),
        "read_at": book.read_at,
        "held": {gpu: reservation_to_json(one) for gpu, one in book.reservations.items()},
        "intents": [intent_to_dict(one) for one in book.intents],
        "grant_numbers": {
            owner: number
            for owner, number in book.grant_numbers.items()
            if owner in book.own_owners
        },
        "released_at": dict(book.released_at),
        "released_by": dict(book.released_by),
        "ended": {owner: one.until for owner, one in book.ended.items()},
        # Apart, so that an earlier release reads the book.
        "ended_uids": {owner: one.uid for owner, one in book.ended.items()},
        "quarantines": quarantines_to_list(book.quarantines.values()),
    }
    return json.dumps(data).encode()


def saved_from_bytes(
    content: bytes, node: str, boot_id: str | None, wall_offset_s: float
) -> SavedBook:
    """Return the book with this content.

    Raises `NewerFormError`; one of `RECORD_ERRORS` or `AttributeError` for what is no book.
    `wall_offset_s` is the clock's offset for a book of an earlier boot, whose own says nothing.
    """
    data = json.loads(content)
    found = data["format"]
    if type(found) is int and found > FORMAT:
        raise NewerFormError(f"is of form {found}, of a later release; this one knows {FORMAT}")
    if (found, data["node"]) != (FORMAT, node):
        raise ValueError(
            f"it is of format {found!r:.20} and node {data['node']!r:.80}, not of {FORMAT} and"
            f" {node!r}: another node's?"
        )
    same_boot = data["boot_id"] == boot_id
    book = _book_from_dict(data)
    if not same_boot:
        # Their writers are gone, and their deadlines are of another boot.
        over = tuple(replace(one, deadline_s=0.0) for one in book.intents)
        book = replace(book, intents=over)
    last = int(data["applied"])
    clock = clock_from_dict(data) if same_boot else BookClock(wall_offset_s, last)
    return SavedBook(book, str(data["journal"]), last, clock, same_boot, str(data.get("kept", "")))


def _book_from_dict(data: dict[str, Any]) -> Book:
    held = {str(gpu): reservation_from_json(gpu, text) for gpu, text in data["held"].items()}
    return Book(
        held,
        {str(gpu): seconds_of(at) for gpu, at in data["released_at"].items()},
        quarantines_from_list(data["quarantines"]),
        frozenset(map(str, (*data["own"], *data.get("own_people", ())))),
        seconds_of(data["read_at"]),
        tuple(map(intent_from_dict, data.get("intents", []))),
        {str(owner): int(number) for owner, number in data.get("grant_numbers", {}).items()},
        {str(gpu): str(user) for gpu, user in data.get("released_by", {}).items()},
        _ended_from_dict(data),
    )


def quarantines_to_list(quarantines: Iterable[Quarantine]) -> list[dict[str, Any]]:
    """Return them for JSON."""
    return [
        {"gpu": one.gpu, "reason": one.reason, "since": one.since, "by": one.by}
        for one in quarantines
    ]


def quarantines_from_list(data: Any) -> dict[str, Quarantine]:
    """Return by GPU those of a list that was parsed; raises one of `RECORD_ERRORS`."""
    found = [
        Quarantine(str(one["gpu"]), str(one["reason"]), seconds_of(one["since"]), str(one["by"]))
        for one in data
    ]
    return {one.gpu: one for one in found}


def _ended_from_dict(data: dict[str, Any]) -> dict[str, EndedOwner]:
    uids = data.get("ended_uids", {})
    return {
        str(owner): EndedOwner(
            seconds_of(until), None if uids.get(owner) is None else int(uids[owner])
        )
        for owner, until in data.get("ended", {}).items()
    }
