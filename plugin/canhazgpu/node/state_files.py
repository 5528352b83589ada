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
READ_BYTES = 65536


class NotRegularFileError(OSError):
    """A FIFO, socket, device, link or directory is where a file should be."""

    def __init__(self, path: Path, number: int = errno.EINVAL) -> None:
        super().__init__(number, "it is no regular file: remove it", str(path))


def open_regular_file(path: Path, flags: int, mode: int = 0o600) -> int:
    """Return a descriptor of the regular file. Raises `OSError`.

    Anything else is not opened: a FIFO or a device could wait for ever, and opening a device may
    do something. It raises `NotRegularFileError`.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        _check_regular(path.lstat(), path)
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        # It may have been replaced meanwhile.
        _check_regular(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(known: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(known.st_mode):
        raise NotRegularFileError(
            path, errno.ELOOP if stat.S_ISLNK(known.st_mode) else errno.EINVAL
        )


def read_regular_file(path: Path) -> bytes:
    """Return the content of the file, whoever owns it. Raises `OSError`."""
    descriptor = open_regular_file(path, os.O_RDONLY)
    try:
        return _read_all(descriptor)
    finally:
        os.close(descriptor)


def _read_all(descriptor: int) -> bytes:
    """Return what is left of the file: without a stream, which takes four system calls more."""
    chunks = []
    while chunk := os.read(descriptor, READ_BYTES):
        chunks.append(chunk)
    return b"".join(chunks)


def read_if_owned(path: Path) -> bytes | None:
    """Return the content of a file that this user owns, else None; raises `OSError`.

    A file of another user counts as missing, since its content decides about GPUs. What is no
    regular file is not opened and has no content: its reader treats it as damaged. A symbolic link
    or a directory raises.
    """
    try:
        descriptor = open_regular_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except NotRegularFileError:
        if path.is_symlink() or path.is_dir():
            raise
        return b"" if path.lstat().st_uid == os.geteuid() else None
    try:
        own = os.fstat(descriptor).st_uid == os.geteuid()
        return _read_all(descriptor) if own else None
    finally:
        os.close(descriptor)


def read_if_trusted(path: Path) -> bytes | None:
    """Return the content of a file that only root or this user can write, else None.

    What is no regular file counts as missing. Raises `OSError`, also for a symbolic link.
    """
    try:
        descriptor = open_regular_file(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except NotRegularFileError:
        if path.is_symlink():
            raise
        return None
    try:
        known = os.fstat(descriptor)
        if known.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return None
        return _read_all(descriptor) if known.st_uid in (0, os.geteuid()) else None
    finally:
        os.close(descriptor)


def write_atomically(
    path: Path,
    content: bytes,
    mode: int = 0o600,
    draft: Path | None = None,
    *,
    is_synced: bool = False,
) -> None:
    """Replace the file's content as a whole, or not at all. Raises `OSError`.

    Who is killed leaves a draft, which the next writer of the file overwrites. Where each owner
    has a file, and all are written under one lock, `draft` is one for all of them.
    """
    # Usually without fsync: the content survives the end of the process. After a power loss there
    # are no jobs, and usually no such directory either: by default it is below /run.
    draft = draft or path.with_name(f".{path.name}.new")
    descriptor = _open_draft(draft, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(content)
            if is_synced:
                # Before it has the name: that may be on the disk first.
                stream.flush()
                os.fsync(stream.fileno())
        draft.replace(path)
    except OSError:
        # On a full disk an incomplete draft would occupy space that others need.
        draft.unlink(missing_ok=True)
        raise


def write_durably(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace the file's content, on the disk when this returns; makes its directory, too.

    Raises `OSError`. It takes as long as the disk does: for what is rarely written.
    """
    make_directory(path.parent)
    write_atomically(path, content, mode, is_synced=True)
    _sync_directory(path.parent)


def remove_durably(path: Path) -> None:
    """Remove the file, if it is there, also on the disk. Raises `OSError`."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        # Some file systems do that for files alone.
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _open_draft(path: Path, mode: int) -> int:
    """Open an empty file of this user's own.

    One that has another name too, or another owner, is not emptied: somebody else put it there.
    """
    descriptor = open_regular_file(path, os.O_CREAT | os.O_WRONLY, mode)
    known = os.fstat(descriptor)
    if known.st_nlink > 1 or known.st_uid != os.geteuid():
        os.close(descriptor)
        path.unlink()
        return open_regular_file(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    if known.st_size:
        os.ftruncate(descriptor, 0)
    return descriptor


def make_directory(path: Path) -> None:
    """Create the directory and its parents with mode 0755, independent of the umask."""
    if path.is_dir():
        return
    make_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        open_new_directory(path)


def open_new_directory(path: Path) -> None:
    """Give the directory that this user has made mode 0755; raises `OSError`.

    Where others may write above it, something else may have its name by now: that is left alone.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            os.fchmod(descriptor, OPEN_DIRECTORY_MODE)
    finally:
        os.close(descriptor)


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
    descriptor = open_regular_file(path, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def try_file_lock(path: Path, *, creates: bool = True) -> int | None:
    """Return a descriptor that holds the file's lock, None if another process holds it.

    The lock is released when the descriptor is closed or the process ends. Raises `OSError`.
    """
    descriptor = open_regular_file(path, os.O_RDWR | (os.O_CREAT if creates else 0))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
