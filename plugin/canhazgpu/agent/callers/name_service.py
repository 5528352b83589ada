"""Ask the name service, which may hang, for what the node's own files do not say."""

from __future__ import annotations

import grp
import json
import os
import pwd
from collections.abc import Callable
from typing import TypeVar

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.probe.bounded_child import BoundedChild, BoundedChildError

K = TypeVar("K")
V = TypeVar("V")

WAIT_S = 2.0
"""Longest wait for all questions of one request together."""


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked: users by number and by name, groups by name, and the groups of users."""

    uids: tuple[int, ...] = ()
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    groups_of: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether anything is asked."""
        return bool(self.uids or self.users or self.groups or self.groups_of)


@dataclass(frozen=True, slots=True)
class Answers:
    """What the name service knows; what it does not know is missing.

    `is_complete` is False where it did not answer: what is missing may exist then.
    """

    names: dict[int, str]
    uids: dict[str, int]
    gids: dict[str, int]
    groups_of: dict[str, tuple[int, ...]]
    is_complete: bool = True


NO_ANSWER = Answers({}, {}, {}, {}, is_complete=False)


def ask_name_service(questions: Questions, wait_s: float = WAIT_S) -> Answers:
    """Return the answers, or `NO_ANSWER` after `wait_s` seconds.

    A process of its own asks: a call of the C library that hangs cannot be interrupted.
    """
    if not questions:
        return Answers({}, {}, {}, {})
    try:
        found = json.loads(BoundedChild(lambda: _answers(questions), wait_s).result())
    except (BoundedChildError, ValueError):
        return NO_ANSWER
    return Answers(
        {int(uid): name for uid, name in found["names"].items()},
        found["uids"],
        found["gids"],
        {name: tuple(gids) for name, gids in found["groups_of"].items()},
    )


def _answers(questions: Questions) -> bytes:
    known = {
        "names": _known(questions.uids, lambda uid: pwd.getpwuid(uid).pw_name),
        "uids": _known(questions.users, lambda name: pwd.getpwnam(name).pw_uid),
        "gids": _known(questions.groups, lambda name: grp.getgrnam(name).gr_gid),
        "groups_of": _known(questions.groups_of, _groups_of),
    }
    return json.dumps(known).encode()


def _groups_of(user: str) -> list[int]:
    return os.getgrouplist(user, pwd.getpwnam(user).pw_gid)


def _known(keys: tuple[K, ...], find: Callable[[K], V]) -> dict[K, V]:
    found = {}
    for key in keys:
        try:
            found[key] = find(key)
        except (KeyError, ValueError, OverflowError):
            continue
    return found
