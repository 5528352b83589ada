"""Declare configuration keys, and check their values."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import field
from typing import Any

from canhazgpu.config.conflict_chain import parse_chain, parse_chains_by_partition
from canhazgpu.errors import InputError
from canhazgpu.frozen_dataclass import dataclass

MAX_WAIT_S = 86400
"""The longest wait that is accepted; every timer of the operating system supports it."""
MAX_AMOUNT = 1_000_000_000
"""More of anything is a typing error; sums and products of such numbers stay numbers."""
MAX_HEARTBEAT_S = 20
"""A third of the time after which an owner without heartbeats counts as gone.

That rule is for owners whose processes cannot be seen."""

Check = Callable[[Any], str | None]
"""Takes a value of the key's type; returns None, or for a wrong value what is accepted."""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What a key has beside its type and default."""

    meaning: str
    check: Check | None = None
    secret: bool = False


def key(default: Any, meaning: str, *, check: Check | None = None, secret: bool = False) -> Any:
    """Declare a configuration key as a dataclass field."""
    return field(default=default, metadata={"info": KeyInfo(meaning, check, secret)})


def one_of(*accepted: str) -> Check:
    """Accept one of the given words."""

    def check(value: str) -> str | None:
        return None if value in accepted else " or ".join(f'"{word}"' for word in accepted)

    return check


def subset_of(*accepted: str) -> Check:
    """Accept a list of the given words."""

    def check(value: tuple[str, ...]) -> str | None:
        return None if set(value) <= set(accepted) else f"a list of {', '.join(accepted)}"

    return check


def word_list(value: tuple[str, ...]) -> str | None:
    """Accept a list of words, none of them empty."""
    return None if all(one.strip() for one in value) else "a list of words, none of them empty"


def account_list(value: tuple[str, ...]) -> str | None:
    """Accept a list of users and groups, by name or number; a group is written ``@group``."""
    names = [one.removeprefix("@") for one in value]
    good = all(re.fullmatch(r"[^\s@:,/]{1,256}", name) for name in names)
    return None if good else 'a list of users and groups, as in ["ann", "@gpu-admins"]'


def at_least(minimum: float) -> Check:
    """Accept a number from `minimum` up, to `MAX_AMOUNT`."""

    def check(value: float) -> str | None:
        accepted = minimum <= value <= MAX_AMOUNT
        return None if accepted else f"a number from {minimum} up, at most {MAX_AMOUNT}"

    return check


def positive_seconds(value: float) -> str | None:
    """Accept a positive number of seconds, up to `MAX_WAIT_S`."""
    return None if 0 < value <= MAX_WAIT_S else f"a number above 0, at most {MAX_WAIT_S}"


def heartbeat_interval(value: float) -> str | None:
    """Accept an interval at which two heartbeats may be lost."""
    return None if 0 < value <= MAX_HEARTBEAT_S else f"a number above 0, at most {MAX_HEARTBEAT_S}"


def absolute_path(value: str) -> str | None:
    """Accept an absolute path."""
    return None if value.startswith("/") else "an absolute path"


def absolute_path_or_empty(value: str) -> str | None:
    """Accept an absolute path, or nothing."""
    return absolute_path(value) if value else None


def store_url(value: str) -> str | None:
    """Accept the forms of `store.url`."""
    schemes = ("redis://", "rediss://", "unix://", "redis+sentinel://", "redis+cluster://")
    if value == "embedded" or value.startswith(schemes):
        return None
    return '"embedded" or a URL beginning with ' + ", ".join(schemes)


def store_prefix(value: str) -> str | None:
    """Accept a prefix of Redis keys that no pattern of an ACL and no name of a user misreads.

    Without "-node", no user's name of one cluster is a user's name of another.
    """
    is_word = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", value) and "-node" not in value
    return None if is_word else 'letters, digits, "_", "." and "-", at most 64, without "-node"'


def valid_chain(value: str) -> str | None:
    """Accept a conflict chain."""
    return _parse_error(lambda: parse_chain(value))


def valid_chains_by_partition(value: tuple[str, ...]) -> str | None:
    """Accept a list of partitions with their conflict chains."""
    return _parse_error(lambda: parse_chains_by_partition(value))


def _parse_error(parse: Callable[[], object]) -> str | None:
    try:
        parse()
    except InputError as exc:
        return str(exc).rpartition("accepted: ")[2]
    return None
