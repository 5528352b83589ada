"""Names of users, the user who asks the node for something, and what that user may do.

Who asks is the kernel's word, never that of an environment variable.
"""

from __future__ import annotations

import os
import pwd

from canhazgpu.errors import InputError
from canhazgpu.frozen_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Rights:
    """What somebody may do on this node. To look, and to release what is one's own, all may.

    `may_reserve`: get GPUs, and keep them longer. `may_administrate`: do what ``canhazgpu admin``
    does; the limits for users do not hold then. `why_not` says why one may not reserve, "" if so.
    """

    may_reserve: bool = True
    may_administrate: bool = False
    why_not: str = ""


EVERYBODYS_RIGHTS = Rights()
ADMINISTRATORS_RIGHTS = Rights(may_administrate=True)


@dataclass(frozen=True, slots=True)
class Caller:
    """The user for whom something is done: reservations are recorded with this `uid`."""

    uid: int
    user: str
    rights: Rights = EVERYBODYS_RIGHTS


def this_caller() -> Caller:
    """Return the real user of this process; one whose effective user is root administrates.

    Here the rights only give clear messages. What protects the ledger is who may write to it.
    """
    uid = os.getuid()
    rights = ADMINISTRATORS_RIGHTS if os.geteuid() == 0 else EVERYBODYS_RIGHTS
    return Caller(uid, user_name(uid) or str(uid), rights)


def require_root(what: str) -> None:
    """Raise `InputError` unless this process is root's."""
    if os.geteuid() != 0:
        raise InputError(f"only root may {what}: run it with sudo")


def require_administrator(caller: Caller, what: str) -> None:
    """Raise `InputError` unless the caller may do what administrators do."""
    if not caller.rights.may_administrate:
        raise InputError(f"only root and this node's operators may {what}: run it with sudo")


def require_may_reserve(caller: Caller) -> None:
    """Raise `InputError` unless the caller may get GPUs."""
    if not caller.rights.may_reserve:
        raise InputError(f"you get no GPUs here: {caller.rights.why_not}")


def user_name(uid: int | None) -> str | None:
    """Return the user's name; the uid as digits if it has no name; None for no uid."""
    if uid is None:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)
