"""Turn a forked child into a process that nobody has to wait for."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Collection

MAX_DESCRIPTOR = 4096
"""Without /proc, descriptors above this are not closed."""


def close_descriptors_except(keep: Collection[int]) -> None:
    """Put /dev/null in place of the standard streams, and close every descriptor but `keep`.

    A child that keeps a pipe of its parent's makes whoever reads from the parent wait for it too.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for descriptor in _open_descriptors():
        if descriptor > 2 and descriptor not in keep:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def duplicate_above_stdio(descriptor: int) -> int:
    """Return a duplicate above the standard streams' numbers, closed by exec.

    A process that was started with its streams closed has its first pipes in their place.
    """
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


def spawn_daemon(work: Callable[[int], None]) -> bytes:
    """Run `work` in a process that is no child of this one, in a session of its own.

    `work` is given a descriptor to write to once it is ready; what it wrote first is returned,
    nothing where it ended without a word. Raises `OSError` where no process can be started.
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
        # A caller that ignores SIGCHLD, as this one may have inherited it, has nothing to collect.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        return os.read(read_end, 4096)
    finally:
        os.close(read_end)


def _double_fork(work: Callable[[int], None], write_end: int) -> None:
    """Fork once more, so that init collects the process and the parent's `wait` never sees it."""
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
