"""One hook of a job at a time, whichever process runs it: a file's lock for each job.

A hook may be killed while the node's agent still works for it, and its second run begins meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from canhazgpu.errors import NodeStateError
from canhazgpu.node.state_files import make_directory, open_regular_file, try_file_lock

DIRECTORY = "hook-locks"


@contextlib.contextmanager
def job_lock(state_dir: Path, job_id: str) -> Iterator[None]:
    """Hold the job's lock inside the block; waits as long as the deadline around it allows.

    Raises `NodeStateError` where the lock cannot be used.
    """
    path = state_dir / DIRECTORY / f"{job_id}.lock"
    try:
        descriptor = _locked(path)
    except OSError as exc:
        raise NodeStateError(f"cannot lock {exc.filename or path}: {exc.strerror}") from exc
    try:
        yield
    finally:
        # Before it is let go: whoever gets the lock of a removed file takes the new one.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def is_in_hook(state_dir: Path, job_id: str) -> bool:
    """Return whether a process holds the job's lock; raises `NodeStateError`."""
    path = state_dir / DIRECTORY / f"{job_id}.lock"
    try:
        held = try_file_lock(path, creates=False)
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise NodeStateError(f"cannot look at {path}: {exc.strerror}") from exc
    if held is not None:
        os.close(held)
    return held is None


def _locked(path: Path) -> int:
    make_directory(path.parent)
    while True:
        descriptor = open_regular_file(path, os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
