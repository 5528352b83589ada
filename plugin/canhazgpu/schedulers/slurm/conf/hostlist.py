"""Expand Slurm's hostlists, such as ``n[1-3,7],login`` or ``/dev/nvidia[0-7]``; pure."""

from __future__ import annotations

import itertools
import re

from canhazgpu.errors import InputError

MAX_NAMES = 65536

_ITEM = re.compile(r"(?:[^\t, \n\[\]]|\[[0-9,-]*\])+")
_BRACKETS = re.compile(r"\[([0-9,-]*)\]")
_SEPARATORS = re.compile("[\t, \n]+")
"""Between two names; in ``slurm.conf`` a value with blanks is in quotes."""
_RANGE = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?")


def expand_hostlist(text: str) -> tuple[str, ...]:
    """Return the names of a hostlist in order; raises `InputError` for a malformed one."""
    names: list[str] = []
    for item in _items(text):
        parts = _BRACKETS.split(item)
        choices = [
            _numbers(part, text) if index % 2 else [part] for index, part in enumerate(parts)
        ]
        for combination in itertools.product(*choices):
            names.append("".join(combination))
            if len(names) > MAX_NAMES:
                raise InputError(f"{text[:80]!r} names more than {MAX_NAMES}")
    return tuple(names)


def hostlist_has(text: str, name: str) -> bool:
    """Tell whether a hostlist has this name, however many it names; raises `InputError`."""
    return any(_item_has(item, name, text) for item in _items(text))


def first_host(text: str) -> str:
    """Return the first name of a hostlist; "" for what is none."""
    item = _ITEM.match(text)
    return _BRACKETS.sub(lambda one: re.split("[,-]", one[1])[0], item[0]) if item else ""


def _item_has(item: str, name: str, whole: str) -> bool:
    parts = _BRACKETS.split(item)
    if len(parts) == 1:
        return item == name
    if len(parts) > 3:  # several ranges: which digits belong to which is not certain
        return name in expand_hostlist(item)
    before, ranges, after = parts
    if not (name.startswith(before) and name.endswith(after)):
        return False
    digits = name[len(before) : len(name) - len(after)]
    return any(_range_has(one, digits, whole) for one in ranges.split(","))


def _range_has(text: str, digits: str, whole: str) -> bool:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise InputError(f"{whole[:80]!r} is not a list of names; accepted: n1,n[2-4]")
    first, last = match[1], match[2] or match[1]
    if not (digits.isascii() and digits.isdecimal()):
        return False
    number = int(digits[:20])
    return int(first) <= number <= int(last) and digits == str(number).zfill(len(first))


def _items(text: str) -> list[str]:
    items = _ITEM.findall(text)
    if ",".join(items) != _SEPARATORS.sub(",", text).strip(","):
        raise InputError(f"{text[:80]!r} is not a list of names; accepted: n1,n[2-4]")
    return items


def _numbers(text: str, whole: str) -> list[str]:
    numbers: list[str] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise InputError(f"{whole[:80]!r} is not a list of names; accepted: n1,n[2-4]")
        first, last = match[1], match[2] or match[1]
        if int(last) < int(first):
            raise InputError(f"{whole[:80]!r} counts backwards; accepted: n1,n[2-4]")
        if len(numbers) + int(last) - int(first) >= MAX_NAMES:
            raise InputError(f"{whole[:80]!r} names more than {MAX_NAMES}")
        numbers.extend(str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
    return numbers
