"""Whose the subordinate uids are, by subuid(5); pure.

A user may have tens of thousands of them, as uids of processes in user namespaces.
"""

from __future__ import annotations

from canhazgpu.frozen_dataclass import dataclass

MAX_UID = 2**32 - 2
"""The last number is no uid (setreuid(2))."""


@dataclass(frozen=True, slots=True)
class SubordinateRange:
    """The uids from `first` to `last`; `owner` is a user's name or number, as the file has it."""

    owner: str
    first: int
    last: int


def parse_subuid(text: str) -> tuple[SubordinateRange, ...]:
    """Return the ranges of the file's text; a line that is none is left out."""
    return tuple(found for line in text.splitlines() if (found := _range_of(line.strip())))


def _range_of(line: str) -> SubordinateRange | None:
    owner, _, numbers = line.partition(":")
    first, _, count = numbers.partition(":")
    if not owner or owner.startswith("#") or not (_is_number(first) and _is_number(count)):
        return None
    last = int(first) + int(count) - 1
    return SubordinateRange(owner, int(first), last) if int(first) <= last <= MAX_UID else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10


def owners_of(ranges: tuple[SubordinateRange, ...], uid: int) -> frozenset[str]:
    """Return the owners whose ranges have this uid, as the file names them."""
    return frozenset(one.owner for one in ranges if one.first <= uid <= one.last)
