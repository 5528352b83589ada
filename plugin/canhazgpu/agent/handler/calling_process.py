"""The process at the other end of a connection, as a `CallingProcess`."""

from __future__ import annotations

import os
from pathlib import Path

from canhazgpu.agent.peer import Peer, has_ended

MAX_TEXT_BYTES = 65536


class ConnectedProcess:
    """The peer, of which the connection has a pidfd.

    What /proc says of its number is about it only if it lives afterwards.
    """

    def __init__(self, peer: Peer, pidfd: int, proc: Path = Path("/proc")) -> None:
        self._peer = peer
        self._pidfd = pidfd
        self._proc = proc

    @property
    def pid(self) -> int:
        """Its number here."""
        return self._peer.pid

    @property
    def uid(self) -> int:
        """Its user when it connected."""
        return self._peer.uid

    def control_groups(self) -> str:
        """See `CallingProcess.control_groups`."""
        path = self._proc / str(self.pid) / "cgroup"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                text = os.read(descriptor, MAX_TEXT_BYTES).decode("utf-8", "replace")
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise ProcessLookupError(f"no process {self.pid}") from exc
        self.require_alive()
        return text

    def require_alive(self) -> None:
        """See `CallingProcess.require_alive`."""
        if has_ended(self._pidfd):
            raise ProcessLookupError(f"process {self.pid} has ended")
