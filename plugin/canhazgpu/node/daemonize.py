"""Start a daemon: a process that is no child of this one and shares no descriptors with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Collection

MAX_DESCRIPTOR = 4096
"""Without /proc, descriptors from this number on are not closed."""


def close_descriptors_except(keep: Collection[int]) -> None:
    """Replace the standard streams by /dev/null, and close all descriptors except `keep`.

    A reader of a pipe waits until every process has closed it, a forked child, too.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for descriptor in _open_descriptors():
        if descriptor > 2 and descriptor not in keep:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def duplicate_above_stdio(descriptor: int) -> int:
    """Return a duplicate with a number above 2 that is closed on exec.

    In a process that was started without standard streams, a pipe may have the number of one.
    """
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


def spawn_daemon(work: Callable[[int], None]) -> bytes:
    """Run `work` in a daemon: in a new session, and not as a child of this process.

    `work` takes a descriptor and writes to it once it is ready. Returns what it wrote first, b""
    if it ended without writing. Raises `OSError` if no process can be started.
    """
    read_end, write_end = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(read_end)
        os.close(write_end)
        raise
    if pid == 0:
        _double_fork(work, write_end)
    os.close(write_end)
    try:
        # If this process inherited that SIGCHLD is ignored, there is nothing to wait for.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        return os.read(read_end, 4096)
    finally:
        os.close(read_end)


def _double_fork(work: Callable[[int], None], write_end: int) -> None:
    """Fork once more: the parent of the daemon then is init, which collects its exit status."""
    status = 1
    try:
        os.setsid()
        if os.fork() == 0:
            write_end = duplicate_above_stdio(write_end)
            close_descriptors_except({write_end})
            os.chdir("/")
            work(write_end)
        status = 0
    finally:
        os._exit(status)


def _open_descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 - names, no paths
    except OSError:
        return list(range(MAX_DESCRIPTOR))
