"""Files that only this process's user may have written, read and replaced as a whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def read_if_owned(path: Path) -> bytes | None:
    """Return the file's content; None where there is none of ours. Raises `OSError`.

    A link, or a file of another user, counts as none: what it says decides who gets GPUs.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read() if os.fstat(descriptor).st_uid == os.geteuid() else None


def write_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put the content there, whole or not at all. Raises `OSError`."""
    # No fsync: a process that dies loses nothing that it wrote, and a node that lost power has
    # neither jobs nor, as a rule, the directory.
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
        # Where the disk is full, half a draft would keep what others could write with.
        draft.unlink(missing_ok=True)
        raise


def make_directory(path: Path) -> None:
    """Create it, and what it lies in, for every user to enter, whatever slurmd's umask is."""
    if path.is_dir():
        return
    make_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        path.chmod(0o755)


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock of this file, for a few file operations alone. Raises `OSError`."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def try_file_lock(path: Path) -> int | None:
    """Return a descriptor that holds the file's lock until it is closed; None where another has it.

    The lock ends with the process, however that ends. Raises `OSError`.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
