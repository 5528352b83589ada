"""A program that serves on each node before slurmd runs, such as an agent that hooks ask."""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from demo_cluster.daemons import Daemons, log_tail
from demo_cluster.errors import StartError
from demo_cluster.host.processes import wait_until
from demo_cluster.layout import Layout, agent_name


class StartingAgent:
    """A node's agent from its start on; it says ``READY=1`` as sd_notify(3) does once it serves."""

    def __init__(
        self, daemons: Daemons, layout: Layout, node: str, command: Sequence[str | Path]
    ) -> None:
        self._daemons = daemons
        self._layout = layout
        self._name = agent_name(node)
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind("")
        address = "@" + self._notified.getsockname()[1:].decode()
        daemons.start(self._name, command, {"NOTIFY_SOCKET": address, "SLURMD_NODENAME": node})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._notified.close()

    def wait_until_ready(self, timeout_s: float) -> None:
        """Raise `StartError` with the log where it ends, or does not serve in time."""
        if not wait_until(self._is_ready, timeout_s):
            tail = log_tail(self._layout, self._name)
            raise StartError(f"{self._name} does not serve after {timeout_s:g} s\n{tail}")

    def _is_ready(self) -> bool:
        self._daemons.require_running(self._name)
        while select.select([self._notified], [], [], 0)[0]:
            if b"READY=1" in self._notified.recv(4096).splitlines():
                return True
        return False
