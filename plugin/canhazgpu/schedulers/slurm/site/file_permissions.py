"""Who else than root could change, and who could read, what root's hooks run and read."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path


def changeable_by_others(path: Path) -> tuple[Path, ...]:
    """Return what another user than root could change to put his own in the place of `path`.

    Looks at the file, at what its links lead to, and at every directory above; a path that is not
    there has nothing to say.
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
    # Nobody replaces another's entry of a directory that is sticky, as /tmp is.
    sticky = stat.S_ISDIR(found.st_mode) and bool(found.st_mode & stat.S_ISVTX)
    by_mode = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky
    return found.st_uid != 0 or bool(by_mode)


def find_closed_to_users(path: Path) -> Path | None:
    """Return what on the way to `path` is closed to ordinary users, None where nothing is.

    Directories have to be entered, and the last step read. What is not there closes nothing, and
    no access lists are looked at.
    """
    for one in reversed((path, *path.parents)):
        with contextlib.suppress(OSError):
            mode = one.stat().st_mode
            needed = stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
            if not mode & needed:
                return one
    return None
