"""Whom a connection's uid is counted for: somebody with 65,536 subordinate uids is one user.

It reads the node's own files when they have changed, and asks no name service. A range that only a
name service knows is therefore counted uid by uid.
"""

from __future__ import annotations

import os
from pathlib import Path

from canhazgpu.agent.callers.account_files import AccountFiles
from canhazgpu.agent.callers.subordinate_uids import owners_of

FILES = ("subuid", "passwd")
MAX_KEPT = 10_000
"""Uids whose owner is kept; then all are forgotten."""

ROOTS_RANGES = "subordinate uids of root"

AdmittedUser = int | str
"""A uid, or the owner of a range of subordinate uids whose uid the node's files do not have."""


class AdmittedUsers:
    """Tells for each uid who it is counted for."""

    def __init__(self, directory: Path = Path("/etc")) -> None:
        self._directory = directory
        self._seen: tuple[object, ...] = ()
        self._files = AccountFiles(directory)
        self._known: dict[int, AdmittedUser] = {}

    def of(self, uid: int) -> AdmittedUser:
        """Return whom the uid is counted for."""
        seen = tuple(_identity(self._directory / name) for name in FILES)
        if seen != self._seen or len(self._known) >= MAX_KEPT:
            self._seen, self._files, self._known = seen, AccountFiles(self._directory), {}
        found = self._known.get(uid)
        if found is None:
            found = self._known[uid] = self._find(uid)
        return found

    def _find(self, uid: int) -> AdmittedUser:
        # An account is itself: root's ranges may have it, too.
        if uid in self._files.names:
            return uid
        owner = min(owners_of(self._files.ranges, uid), default="")
        if not owner:
            return uid
        found = int(owner) if owner.isdecimal() else self._files.uids.get(owner, owner)
        # What is in a container of root's takes no place of root's.
        return found or ROOTS_RANGES


def _identity(path: Path) -> object:
    """Return what changes when the file does, None for one that is not there."""
    try:
        found = os.stat(path)  # noqa: PTH116 - at each connection: no object more than needed
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
