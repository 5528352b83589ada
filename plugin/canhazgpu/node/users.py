"""Users of this node: their names, and who runs this process.

The kernel tells who that is, never an environment variable.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from canhazgpu.errors import InputError


@dataclass(frozen=True, slots=True)
class Caller:
    """The real user of this process, and whether it may do what only root may."""

    uid: int
    user: str
    is_root: bool


def this_caller() -> Caller:
    """Return who runs this process."""
    uid = os.getuid()
    return Caller(uid, user_name(uid) or str(uid), os.geteuid() == 0)


def require_root(caller: Caller, what: str) -> None:
    """Raise `InputError` unless the caller is root.

    A courtesy: what really keeps others from the ledger are the rights that the store gives.
    """
    if not caller.is_root:
        raise InputError(f"only root may {what}: run it with sudo")


def user_name(uid: int | None) -> str | None:
    """Return the user's name, the uid as digits for a user without one, None for no uid."""
    if uid is None:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)
