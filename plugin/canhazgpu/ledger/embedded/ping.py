"""The one question that the starter asks the server, without a client library."""

from __future__ import annotations

import socket
from pathlib import Path

ANSWER_LIMIT_S = 1.0


def answers_ping(path: Path) -> bool:
    """Say whether the server at the socket has read its data and answers."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ANSWER_LIMIT_S)
        try:
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(16) == b"+PONG\r\n"
        except OSError:
            return False
