"""The time by the store's clock, as the node's book knows it; pure.

The book adds an offset to the node's uptime. The store's answers tell the offset. Until the first
answer of a boot it is the machine's own clock that does, and this one may be wrong. What was
granted by it was promised for so many seconds, so its end is corrected with the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.co_holders import change_holders
from canhazgpu.ledger.journal_entries import JournalEntry, NumberedEntry, seconds_of
from canhazgpu.ledger.local.book.book import Book
from canhazgpu.ledger.values import Reservation

TOLERANCE_S = 2.0
"""A difference up to this is that of two right clocks, and of an answer that was on its way."""


class Correction(NamedTuple):
    """The entries with numbers after `after`, through `through`, are `shift_s` too early.

    So are the grants of these numbers.
    """

    after: int
    through: int
    shift_s: float


@dataclass(frozen=True, slots=True)
class BookClock:
    """`offset_s` is added to the node's uptime for the time by the store's clock, in seconds.

    `estimated_after` is None once the store has told the time in this boot. Until then, entries
    with a higher number have their times by the machine's own clock. `correction` is about those of
    them that the journal still has.
    """

    offset_s: float
    estimated_after: int | None = None
    correction: Correction | None = None

    @property
    def is_estimated(self) -> bool:
        """Whether the store has not told the time in this boot."""
        return self.estimated_after is not None

    def is_by_store(self, number: int) -> bool:
        """Whether the times of the entry with this number are by the store's clock, uncorrected."""
        if self.estimated_after is not None:
            return number <= self.estimated_after
        correction = self.correction
        return correction is None or not correction.after < number <= correction.through

    def with_offset(self, offset_s: float, last: int) -> BookClock:
        """Return the clock with the store's own offset; `last` is the last number given out."""
        correction = self.correction
        if self.estimated_after is not None:
            shift_s = offset_s - self.offset_s
            correction = Correction(self.estimated_after, last, shift_s)
            correction = correction if abs(shift_s) > TOLERANCE_S else None
        return BookClock(offset_s, None, correction)


def corrected_book(book: Book, correction: Correction, now: float) -> Book:
    """Return the book with the times of these grants and intents corrected.

    Nothing was released later than `now`, in seconds since the epoch by the store's clock.
    """
    shift_s = correction.shift_s

    def corrected(one: Reservation) -> Reservation:
        number = book.grant_numbers.get(one.claim.owner, 0)
        if not correction.after < number <= correction.through:
            return one
        end = None if one.expires_at is None else one.expires_at + shift_s
        return replace(one, granted_at=one.granted_at + shift_s, expires_at=end)

    return replace(
        book,
        reservations=change_holders(book.reservations, corrected),
        intents=tuple(replace(one, at=one.at + shift_s) for one in book.intents),
        released_at={gpu: min(at, now) for gpu, at in book.released_at.items()},
    )


def corrected_entries(
    entries: Sequence[NumberedEntry], correction: Correction | None
) -> tuple[NumberedEntry, ...]:
    """Return the journal's entries with their times corrected."""
    if correction is None:
        return tuple(entries)
    after, through, _ = correction
    return tuple(
        replace(one, entry=_corrected_entry(one.entry, correction))
        if after < one.number <= through
        else one
        for one in entries
    )


def _corrected_entry(entry: JournalEntry, correction: Correction) -> JournalEntry:
    after, _, shift_s = correction
    end = entry.expires_at
    # The end of an earlier grant, and what was added to it, are by the store's clock.
    if end is not None and entry.grant is not None and entry.grant > after:
        end += shift_s
    return replace(entry, at=entry.at + shift_s, expires_at=end)


def clock_to_dict(clock: BookClock) -> dict[str, Any]:
    """Return the clock for JSON, as keys of the book."""
    known: dict[str, Any] = {"clock_offset_s": clock.offset_s}
    if clock.estimated_after is not None:
        known["clock_estimated_after"] = clock.estimated_after
    if clock.correction is not None:
        known["clock_correction"] = list(clock.correction)
    return known


def clock_from_dict(data: dict[str, Any]) -> BookClock:
    """Return the clock of a book; raises one of `RECORD_ERRORS` for anything else.

    A book of an earlier release says nothing of estimates.
    """
    after = data.get("clock_estimated_after")
    correction = data.get("clock_correction")
    return BookClock(
        seconds_of(data["clock_offset_s"]),
        None if after is None else _number(after),
        None if correction is None else _correction(correction),
    )


def _correction(values: Any) -> Correction:
    after, through, shift_s = values
    return Correction(_number(after), _number(through), seconds_of(shift_s))


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("no number of an entry")
    return value
