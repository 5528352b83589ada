"""Files in a directory that another user may own, or may put something else in the place of.

A daemon's account owns the directory where root leaves metrics for it. As long as it can replace a
part of the path by a link, or a file by a link to another, root would write wherever it likes. So
the directory is opened once, part by part, and no link is followed that another user could have
made; the files are named in what was opened, and each is a new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from canhazgpu.frozen_dataclass import dataclass

DIRECTORY_MODE = 0o755
MAX_LINKS = 40
"""As many as the kernel follows."""
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class UntrustedDirectory:
    """An open directory; the methods raise `OSError`."""

    descriptor: int

    def read(self, name: str) -> bytes | None:
        """Return the content of a regular file that this user wrote, None for all else."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | _OPEN
        try:
            opened = os.open(name, flags, dir_fd=self.descriptor)
        except OSError as exc:
            if exc.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                return None
            raise
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            os.close(opened)
            return None
        with os.fdopen(opened, "rb") as stream:
            return stream.read()

    def replace(self, name: str, content: bytes, mode: int) -> None:
        """Put a new file with this content in the place of what has the name."""
        draft = f".{name}.new"
        self.remove(draft)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | _OPEN
        opened = os.open(draft, flags, 0o600, dir_fd=self.descriptor)
        try:
            with os.fdopen(opened, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fchmod(opened, mode)
            os.replace(draft, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        except OSError:
            self.remove(draft)
            raise

    def remove(self, name: str) -> None:
        """Remove what has the name, if anything has."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)


@contextlib.contextmanager
def untrusted_directory(path: Path, *, makes: bool = False) -> Iterator[UntrustedDirectory]:
    """Open the directory; `makes` it, and those above it, where they are missing.

    Raises `OSError`; a `PermissionError` for a link that another user could have made.
    """
    opened = _open(path.absolute(), makes)
    try:
        yield UntrustedDirectory(opened)
    finally:
        os.close(opened)


def refuse_others_above(path: Path) -> None:
    """Raise `PermissionError` where another user could put something else in the path's place.

    Its `filename` is the directory in which they could. What does not exist yet is not looked at.
    """

    def refuse(directory: int) -> None:
        found = os.fstat(directory)
        if found.st_uid not in (0, os.geteuid()) or _all_may_replace(found.st_mode):
            where = os.readlink(f"/proc/self/fd/{directory}")  # noqa: PTH115 - as it is named now
            raise PermissionError(errno.EPERM, "others may write to it", where)

    with contextlib.suppress(FileNotFoundError):
        os.close(_open(path.absolute(), makes=False, looks_in=refuse))


def _all_may_replace(mode: int) -> bool:
    """Return whether all may replace what others have in the directory; not so in /tmp."""
    return mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH


def _open(path: Path, makes: bool, looks_in: Callable[[int], None] = lambda _: None) -> int:
    left, links = [part for part in str(path).split("/") if part], 0
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while left:
            looks_in(here)
            entry = _entry(here, left.pop(0), makes, path)
            if stat.S_ISLNK(os.fstat(entry).st_mode):
                target, links = _followed(here, entry, path), links + 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
                left[:0] = [part for part in target.split("/") if part]
                entry = os.open("/" if target.startswith("/") else ".", os.O_PATH, dir_fd=here)
            here, left_behind = entry, here
            os.close(left_behind)
        if not stat.S_ISDIR(os.fstat(here).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    except OSError:
        os.close(here)
        raise
    return here


def _entry(directory: int, name: str, makes: bool, path: Path) -> int:
    flags = os.O_PATH | _OPEN
    try:
        with contextlib.suppress(FileNotFoundError):
            return os.open(name, flags, dir_fd=directory)
        if not makes:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, DIRECTORY_MODE, dir_fd=directory)
        made = os.open(name, flags, dir_fd=directory)
    except OSError as exc:
        exc.filename = str(path)
        raise
    found = os.fstat(made)
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
        # Whatever the umask is. By its descriptor: something else may have its name by now.
        Path(f"/proc/self/fd/{made}").chmod(DIRECTORY_MODE)
    return made


def _followed(directory: int, link: int, path: Path) -> str:
    """Return where the link leads; both are open."""
    around = os.fstat(directory)
    # In a sticky directory, as /tmp is, nobody replaces another's entry.
    others_replace = (
        around.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not around.st_mode & stat.S_ISVTX
    )
    owners = {around.st_uid, os.fstat(link).st_uid}
    if others_replace or not owners <= {0, os.geteuid()}:
        raise PermissionError(errno.EPERM, "a link in the path may be another user's", str(path))
    return os.readlink("", dir_fd=link)
