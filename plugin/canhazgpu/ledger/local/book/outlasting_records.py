"""What a node's book and journal say that holds after a reboot, too; pure.

Both are lost with `node.state_dir` when a node reboots, and the store may be away then. Whoever
reserved a GPU until tomorrow has it all the same, and a GPU in quarantine stays there. Once the
store answers, its word counts, and it hears what it had not heard before the reboot.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field, replace
from typing import Any, TypeVar

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.co_holders import change_holders, select_holders
from canhazgpu.ledger.journal_entries import (
    EXTEND,
    GRANT,
    QUARANTINE,
    RELEASE,
    UNQUARANTINE,
    JournalEntry,
    NumberedEntry,
    entry_from_dict,
    entry_to_dict,
)
from canhazgpu.ledger.local.book.book import Book
from canhazgpu.ledger.local.book.book_clock import BookClock
from canhazgpu.ledger.local.book.saved_book import quarantines_from_list, quarantines_to_list
from canhazgpu.ledger.owner import MANUAL
from canhazgpu.ledger.record_json import reservation_from_json, reservation_to_json
from canhazgpu.ledger.release_reasons import EXPIRED
from canhazgpu.ledger.values import RECORD_ERRORS, Claim, Quarantine, Reservation

T = TypeVar("T")

FORMAT = 1
MAX_UNHEARD = 500
"""Of more entries that the store has not heard, the last ones outlast a reboot."""


@dataclass(frozen=True, slots=True)
class OutlastingRecords:
    """Reservations for a time and quarantines, by GPU, and what the store has not heard of them.

    Times are in whole seconds, an end rounded up: node and store differ by milliseconds, and that
    is nothing to write down. Ends in `unheard` are by the store's clock.
    """

    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    quarantines: Mapping[str, Quarantine] = field(default_factory=dict)
    unheard: Sequence[JournalEntry] = ()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.reservations or self.quarantines or self.unheard)


NOTHING_OUTLASTS = OutlastingRecords()


def outlasting_records(
    book: Book, pending: Iterable[NumberedEntry], clock: BookClock
) -> OutlastingRecords:
    """Return what outlasts a reboot of a book and of its journal's pending entries."""
    entries = [
        one.entry
        for one in pending
        if one.entry.kind not in (GRANT, EXTEND) or clock.is_by_store(one.number)
    ]
    return _outlasting(book, _unheard(book, entries))


def _outlasting(book: Book, unheard: Sequence[JournalEntry]) -> OutlastingRecords:
    timed = select_holders(book.reservations, _is_timed)
    return OutlastingRecords(
        change_holders(timed, _in_whole_seconds),
        {
            gpu: replace(one, since=float(math.floor(one.since)))
            for gpu, one in book.quarantines.items()
        },
        tuple(unheard[-MAX_UNHEARD:]),
    )


def _unheard(book: Book, entries: Sequence[JournalEntry]) -> list[JournalEntry]:
    """Return those that the store is to hear after a reboot, too.

    Of an owner that is granted GPUs and releases them in the meantime there is nothing to tell. A
    release of all that an owner has, who holds something, is of an earlier grant.
    """
    held = {one.claim.owner for each in book.reservations.values() for one in each.holders}
    granted = {one.owner for one in entries if one.kind == GRANT}

    def outlasts(entry: JournalEntry) -> bool:
        if entry.kind in (GRANT, EXTEND):
            is_timed = entry.claim is not None and _depends_on_no_boot(entry.claim)
            return is_timed and entry.owner in held
        if entry.kind == RELEASE:
            # The store knows by itself what is over.
            if entry.reason == EXPIRED or not entry.owner.startswith(f"{MANUAL}:"):
                return False
            if entry.owner in held:
                return bool(entry.gpus)
            return entry.owner not in granted
        return entry.kind in (QUARANTINE, UNQUARANTINE)

    return [one for one in entries if outlasts(one)]


def _is_timed(one: Reservation) -> bool:
    return one.expires_at is not None and _depends_on_no_boot(one.claim)


def _depends_on_no_boot(claim: Claim) -> bool:
    return claim.boot_id is None and claim.owner.startswith(f"{MANUAL}:")


def _in_whole_seconds(one: Reservation) -> Reservation:
    """Return it without what a heartbeat changes."""
    end = None if one.expires_at is None else float(math.ceil(one.expires_at))
    return Reservation(one.gpu, one.claim, float(math.floor(one.granted_at)), end)


def repeated_entries(records: OutlastingRecords) -> tuple[JournalEntry, ...]:
    """Return the entries by which the store hears after the boot what it had not heard before.

    They take no GPU from anybody; numbers of grants were those of the former journal.
    """
    return tuple(
        replace(one, grant=None, yields=one.yields or one.kind in (GRANT, EXTEND))
        for one in records.unheard
    )


def digest(content: bytes) -> str:
    """Return what tells this content of the file from others, "" of none."""
    return f"{zlib.crc32(content):08x}-{len(content)}" if content else ""


def outlasting_to_bytes(records: OutlastingRecords, node: str) -> bytes:
    """Return the content of the node's file, nothing where nothing outlasts."""
    if not records:
        return b""
    data = {
        "format": FORMAT,
        "node": node,
        "held": {gpu: reservation_to_json(one) for gpu, one in records.reservations.items()},
        "quarantines": quarantines_to_list(records.quarantines.values()),
        "unheard": [entry_to_dict(one) for one in records.unheard],
    }
    return json.dumps(data, sort_keys=True).encode()


def outlasting_from_bytes(content: bytes, node: str) -> OutlastingRecords:
    """Return the records of a file with this content; one that cannot be read is left out.

    Raises one of `RECORD_ERRORS` or `AttributeError` for what is no file of this node.
    """
    data = json.loads(content)
    if (data["format"], data["node"]) != (FORMAT, node):
        raise ValueError(f"it is not of format {FORMAT} and node {node!r}")
    held = {str(gpu): reservation_from_json(gpu, text) for gpu, text in data["held"].items()}
    quarantines: dict[str, Quarantine] = {}
    for one in _readable(data["quarantines"], lambda one: quarantines_from_list([one])):
        quarantines |= one
    unheard = _readable(data["unheard"], entry_from_dict)
    return _outlasting(Book(held, quarantines=quarantines), unheard)


def _readable(listed: Any, read: Callable[[Any], T]) -> list[T]:
    if not isinstance(listed, list):
        raise TypeError("no list")
    found = []
    for one in listed:
        with suppress(*RECORD_ERRORS, AttributeError):
            found.append(read(one))
    return found
