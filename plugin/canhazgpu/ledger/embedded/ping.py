"""Send PING to the embedded server, without a client library."""

from __future__ import annotations

import socket
from pathlib import Path

ANSWER_LIMIT_S = 1.0


def answers_ping(path: Path) -> bool:
    """Return whether the server on the socket has loaded its data and answers."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ANSWER_LIMIT_S)
        try:
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(16) == b"+PONG\r\n"
        except OSError:
            return False
