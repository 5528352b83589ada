"""Start a scanner when somebody connects to its socket and none lives, as inetd does ("wait").

The listener owns the listening socket, and only looks at it while there is no scanner.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable

from canhazgpu.agent.scanner.server import serve

REST_S = 0.5
"""How long none is started after one that failed: a driver that kills it must not fill the CPU."""


class ScannerStarter:
    """The scanner of this agent; `idle_s` is how long it keeps the driver after a scan."""

    def __init__(
        self,
        listening: socket.socket,
        idle_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listening = listening
        self._idle_s = idle_s
        self._clock = clock
        self._pid = 0
        self._rests_until = 0.0

    @property
    def descriptor(self) -> int:
        """The socket's descriptor."""
        return self._listening.fileno()

    @property
    def waits(self) -> bool:
        """Whether a connection starts a scanner."""
        return not self._pid and self.rest_s <= 0

    @property
    def rest_s(self) -> float:
        """How long none is started, in seconds; not positive if one may be."""
        return self._rests_until - self._clock()

    def start(self) -> None:
        """Start a scanner; raises `OSError` where no process can be started."""
        agent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            self._rests_until = self._clock() + REST_S
            raise
        if pid == 0:
            status = 1
            try:
                serve(self._listening, idle_s=self._idle_s, parent=agent)
                status = 0
            finally:
                os._exit(status)
        self._pid = pid

    def reap(self) -> str:
        """Note that the scanner has ended, if it has; return its fault, empty for none.

        One that was stopped is killed: it would neither answer nor leave its place to another.
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
        return f"the scanner (PID {found}) ended with {code}"
