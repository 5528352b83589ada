"""Start a scanner when somebody connects to its socket and none lives, as inetd does ("wait").

The listener owns the listening socket, and only looks at it while there is no scanner.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from canhazgpu.agent.scanner.server import serve
from canhazgpu.agent.single_child import SingleChild


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
        self._child = SingleChild("scanner", clock)

    @property
    def descriptor(self) -> int:
        """The socket's descriptor."""
        return self._listening.fileno()

    @property
    def waits(self) -> bool:
        """Whether a connection starts a scanner."""
        return not self._child.lives and self.rest_s <= 0

    @property
    def rest_s(self) -> float:
        """How long none is started, in seconds; not positive if one may be."""
        return self._child.rest_s

    def start(self) -> None:
        """Start a scanner; raises `OSError` where no process can be started."""
        agent = os.getpid()
        self._child.start(lambda: serve(self._listening, idle_s=self._idle_s, parent=agent))

    def kill_and_forget(self) -> int:
        """Kill the scanner, whose requests are then scanned for by who asked; return its pid."""
        return self._child.kill_and_release()

    def reap(self) -> str:
        """Note that the scanner has ended, if it has; return its fault, empty for none."""
        return self._child.reap()
