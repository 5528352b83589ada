"""A process of which the listener has one at a time, and starts another when it is needed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

REST_S = 0.5
"""How long none is started after one that failed: what kills it must not fill the CPU."""


class SingleChild:
    """The process; `name` is for faults."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._pid = 0
        self._rests_until = 0.0

    @property
    def lives(self) -> bool:
        """Whether one was started and has not been reaped."""
        return bool(self._pid)

    @property
    def rest_s(self) -> float:
        """How long none is started, in seconds; not positive if one may be."""
        return self._rests_until - self._clock()

    def start(self, work: Callable[[], None]) -> None:
        """Have a new process do the work; raises `OSError` where none can be started."""
        try:
            pid = os.fork()
        except OSError:
            self._rests_until = self._clock() + REST_S
            raise
        if pid == 0:
            status = 1
            try:
                work()
                status = 0
            finally:
                os._exit(status)
        self._pid = pid

    def adopt(self, pid: int) -> None:
        """Take a process that was released: it is reaped here from now on."""
        self._pid = pid

    def release(self) -> int:
        """Return its pid, and forget it: the caller reaps it."""
        pid, self._pid = self._pid, 0
        return pid

    def kill(self) -> None:
        """Kill the process; it is still to be reaped."""
        self._signal(signal.SIGKILL)

    def kill_and_release(self) -> int:
        """Kill the process and forget it; return its pid, 0 for none: the caller reaps it."""
        self._signal(signal.SIGKILL)
        return self.release()

    def tell_to_end_and_release(self) -> int:
        """As `kill_and_release`, but let it end what it is doing."""
        self._signal(signal.SIGTERM)
        return self.release()

    def _signal(self, number: signal.Signals) -> None:
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def reap(self) -> str:
        """Note that the process has ended, if it has; return its fault, empty for none.

        One that was stopped is killed: it would neither work nor leave its place to another.
        """
        if not self._pid:
            return ""
        try:
            found, status = os.waitpid(self._pid, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            found, status = self._pid, 0
        if found and os.WIFSTOPPED(status):
            # Its end is another SIGCHLD. It is not reaped yet: the number is still its own.
            os.kill(self._pid, signal.SIGKILL)
            return ""
        if not found:
            return ""
        self._pid = 0
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return ""
        self._rests_until = self._clock() + REST_S
        return f"the {self._name} (PID {found}) ended with {code}"
