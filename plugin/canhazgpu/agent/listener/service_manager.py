"""Tell the service manager how far this process is (sd_notify(3)), without its library."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

VARIABLE = "NOTIFY_SOCKET"


class ServiceManager:
    """The service manager that started this process, if one did."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get(VARIABLE, "")

    def tell(self, *assignments: str) -> None:
        """Send assignments such as ``READY=1``; a manager that does not take them is no fault."""
        if not self._address.startswith(("/", "@")):
            return
        address = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager,
        ):
            manager.setblocking(False)
            manager.sendto("\n".join(assignments).encode(), address)

    def ready(self) -> None:
        """Tell that requests are served from now on."""
        self.tell("READY=1", f"MAINPID={os.getpid()}", "STATUS=serving requests")

    def reloading(self) -> None:
        """Tell that `ready` will follow, from what this process is then."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        status = "STATUS=starting the installed release"
        self.tell("RELOADING=1", f"MONOTONIC_USEC={now_us}", status)

    def stopping(self) -> None:
        """Tell that this process ends."""
        self.tell("STOPPING=1", "STATUS=waiting for requests that are under way")
