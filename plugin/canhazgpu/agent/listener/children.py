"""The listener's children: each has a time limit, and is reaped when it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from canhazgpu.agent.callers.admitted_user import AdmittedUser
from canhazgpu.agent.handler_reports import Report
from canhazgpu.agent.request import RequestSocket

STARTING_LIMIT_S = 20.0
"""Time for a handler to say how long it may take; it says so when it is ready."""


ENDLESS_S = 3600.0
"""A child that may take longer only looks, for as long as its caller wants."""


@dataclass(slots=True)
class Child:
    """A forked handler; `ends_at` is in seconds of the monotonic clock."""

    pid: int
    arrived_at: RequestSocket
    user: AdmittedUser
    what: str
    ends_at: float
    is_killed: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """A child that ended; `fault` is empty if it ended as it should."""

    child: Child
    fault: str


class Children:
    """The handlers that run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_pid: dict[int, Child] = {}

    def __len__(self) -> int:
        return len(self._by_pid)

    def add(self, pid: int, arrived_at: RequestSocket, user: AdmittedUser) -> None:
        """Take a child that was just forked."""
        ends_at = self._clock() + STARTING_LIMIT_S
        self._by_pid[pid] = Child(pid, arrived_at, user, f"a request of user {user}", ends_at)

    def adopt(self, child: Child) -> None:
        """Take a child of the program that this process was before."""
        self._by_pid[child.pid] = child

    def all(self) -> list[Child]:
        """Return all children."""
        return list(self._by_pid.values())

    @property
    def has_brief(self) -> bool:
        """Whether there is one that may not go on for as long as its caller wants."""
        return any(one.ends_at <= self._clock() + ENDLESS_S for one in self._by_pid.values())

    def note(self, report: Report) -> None:
        """Take what a child says of itself."""
        child = self._by_pid.get(report.pid)
        if child is None:
            return
        if report.method:
            child.what = report.method
        if report.limit_s is not None:
            child.ends_at = self._clock() + report.limit_s

    def finish(self, pid: int) -> Ended | None:
        """Take note that its request is over, but not the process; None if it is being killed."""
        child = self._by_pid.get(pid)
        if child is None or child.is_killed:
            return None
        del self._by_pid[pid]
        return Ended(child, "")

    def next_end_s(self) -> float | None:
        """Return how long it is until a child's time is over, None without one."""
        times = [one.ends_at for one in self._by_pid.values() if not one.is_killed]
        return max(min(times) - self._clock(), 0.0) if times else None

    def kill_overdue(self) -> None:
        """Kill the children whose time is over."""
        for one in self._by_pid.values():
            if not one.is_killed and one.ends_at <= self._clock():
                self._kill(one)

    def kill_endless(self) -> None:
        """Kill the children that may go on for longer than any request that changes something."""
        for one in self._by_pid.values():
            if one.ends_at > self._clock() + ENDLESS_S:
                self._kill(one)

    def kill_all(self) -> None:
        """Kill all children."""
        for one in self._by_pid.values():
            self._kill(one)

    def reap(self) -> Iterator[Ended]:
        """Yield the children that have ended since the last call."""
        for pid in list(self._by_pid):
            try:
                found, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                # Whoever started the agent had SIGCHLD ignored: there is no status to see.
                found, status = pid, 0
            if found:
                child = self._by_pid.pop(pid)
                yield Ended(child, _fault(child, os.waitstatus_to_exitcode(status)))

    def _kill(self, child: Child) -> None:
        child.is_killed = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)


def _fault(child: Child, code: int) -> str:
    what = f"{child.what} (PID {child.pid})"
    if child.is_killed:
        return f"{what} did not end within its time and was killed"
    if code < 0:
        return f"{what} died of {signal.Signals(-code).name}"
    return f"{what} ended with status {code}" if code else ""
