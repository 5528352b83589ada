"""Names of users, and the user who runs this process.

The user comes from the kernel, never from an environment variable.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from canhazgpu.errors import InputError


@dataclass(frozen=True, slots=True)
class Caller:
    """The real user of this process; `is_root` says whether its effective user is root."""

    uid: int
    user: str
    is_root: bool


def this_caller() -> Caller:
    """Return the user who runs this process."""
    uid = os.getuid()
    return Caller(uid, user_name(uid) or str(uid), os.geteuid() == 0)


def require_root(caller: Caller, what: str) -> None:
    """Raise `InputError` unless the caller is root.

    This gives a clear message. The access rights of the store are what protects the ledger.
    """
    if not caller.is_root:
        raise InputError(f"only root may {what}: run it with sudo")


def user_name(uid: int | None) -> str | None:
    """Return the user's name; the uid as digits if it has no name; None for no uid."""
    if uid is None:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)
