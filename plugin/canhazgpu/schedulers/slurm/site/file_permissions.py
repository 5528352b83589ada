"""Which files of root's hooks other users could change, and which they cannot read."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path


def changeable_by_others(path: Path) -> tuple[Path, ...]:
    """Return the paths by which another user than root could replace `path` or change it.

    Checks the file, the target of its links, and every directory above. A path that does not
    exist is skipped.
    """
    found: dict[Path, None] = {}
    for start in _link_chain(path):
        for one in (start, *start.parents):
            with contextlib.suppress(OSError):
                if _is_changeable_by_others(one.lstat()):
                    found[one] = None
    return tuple(found)


def _link_chain(path: Path) -> Iterator[Path]:
    yield path
    with contextlib.suppress(OSError, RuntimeError):
        if (resolved := path.resolve(strict=True)) != path:
            yield resolved


def _is_changeable_by_others(found: os.stat_result) -> bool:
    if stat.S_ISLNK(found.st_mode):
        return found.st_uid != 0
    # In a sticky directory such as /tmp, a user cannot replace another's entry.
    sticky = stat.S_ISDIR(found.st_mode) and bool(found.st_mode & stat.S_ISVTX)
    by_mode = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky
    return found.st_uid != 0 or bool(by_mode)


def find_closed_to_users(path: Path) -> Path | None:
    """Return the first part of `path` that is closed to ordinary users, None if none is.

    Users must be able to enter the directories and to read the file. A part that does not exist
    is skipped. Access control lists are not checked.
    """
    for one in reversed((path, *path.parents)):
        with contextlib.suppress(OSError):
            mode = one.stat().st_mode
            needed = stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
            if not mode & needed:
                return one
    return None
