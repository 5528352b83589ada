"""Read, write and lock files in the state directory; only files of this process's user count."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

OPEN_DIRECTORY_MODE = 0o755


def read_if_owned(path: Path) -> bytes | None:
    """Return the content of a file that this user owns, else None; raises `OSError`.

    A file of another user counts as missing, since its content decides about GPUs. A symbolic link
    raises.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read() if os.fstat(descriptor).st_uid == os.geteuid() else None


def read_if_trusted(path: Path) -> bytes | None:
    """Return the content of a file that only root or this user can write, else None.

    What is no regular file counts as missing. Raises `OSError`, also for a symbolic link.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(descriptor, "rb") as stream:
        known = os.fstat(descriptor)
        written_by_others = known.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISREG(known.st_mode) or written_by_others:
            return None
        return stream.read() if known.st_uid in (0, os.geteuid()) else None


def write_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace the file's content as a whole, or not at all. Raises `OSError`."""
    # No fsync: the content survives the end of the process. After a power loss there are no jobs,
    # and usually no such directory either: by default it is below /run.
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(
        draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode
    )
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(content)
        draft.replace(path)
    except OSError:
        # On a full disk an incomplete draft would occupy space that others need.
        draft.unlink(missing_ok=True)
        raise


def make_directory(path: Path) -> None:
    """Create the directory and its parents with mode 0755, independent of the umask."""
    if path.is_dir():
        return
    make_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        path.chmod(OPEN_DIRECTORY_MODE)


def open_directory_to_users(path: Path) -> None:
    """Create this user's directory, or mend its mode, so that all users can read what is in it.

    Raises `PermissionError` for a directory, or a link to one, that another user owns.
    """
    make_directory(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        for uid in (path.lstat().st_uid, found.st_uid):
            if uid != os.geteuid():
                raise PermissionError(errno.EPERM, f"it belongs to uid {uid}", str(path))
        if stat.S_IMODE(found.st_mode) != OPEN_DIRECTORY_MODE:
            os.fchmod(descriptor, OPEN_DIRECTORY_MODE)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the file's lock inside the block, for file operations only. Raises `OSError`."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def try_file_lock(path: Path) -> int | None:
    """Return a descriptor that holds the file's lock, None if another process holds it.

    The lock is released when the descriptor is closed or the process ends. Raises `OSError`.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
