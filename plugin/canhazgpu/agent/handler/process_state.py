"""What a request may leave behind in its process; compared, it tells whether it left anything."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from pathlib import Path

from canhazgpu.agent.handler.fresh_process import RESET_SIGNALS
from canhazgpu.frozen_dataclass import dataclass

LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_CORE)


@dataclass(frozen=True, slots=True)
class ProcessState:
    """All of a process that outlives a request, but the modules' own objects."""

    descriptors: frozenset[str]
    threads: int
    has_children: bool
    directory: str
    umask: int
    users: tuple[int, ...]
    groups: tuple[int, ...]
    control_groups: str
    signal_actions: tuple[object, ...]
    blocked_signals: frozenset[int]
    timer: tuple[float, float]
    limits: tuple[tuple[int, int], ...]
    niceness: int
    modules: int
    search_path: tuple[str, ...]
    environment: frozenset[tuple[str, str]]


def process_state() -> ProcessState:
    """Return the state of this process. Raises `OSError` where it cannot be seen."""
    return ProcessState(
        descriptors=frozenset(os.listdir("/proc/self/fd")),  # noqa: PTH208 - a path for each costs time
        threads=len(os.listdir("/proc/self/task")),  # noqa: PTH208 - as above
        has_children=_has_children(),
        directory=os.getcwd(),  # noqa: PTH109 - as above
        umask=_umask(),
        users=(*os.getresuid(), *os.getresgid()),
        groups=tuple(os.getgroups()),
        control_groups=Path("/proc/self/cgroup").read_text("utf-8", "replace"),
        signal_actions=tuple(signal.getsignal(number) for number in RESET_SIGNALS),
        blocked_signals=frozenset(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        timer=signal.getitimer(signal.ITIMER_REAL),
        limits=tuple(resource.getrlimit(one) for one in LIMITS),
        niceness=os.getpriority(os.PRIO_PROCESS, 0),
        modules=len(sys.modules),
        search_path=tuple(sys.path),
        environment=frozenset(os.environ.items()),
    )


def _has_children() -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    return False


def _umask() -> int:
    before = os.umask(0o077)
    os.umask(before)
    return before
