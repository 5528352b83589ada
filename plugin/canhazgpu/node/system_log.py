"""Write lines to this node's syslog."""

from __future__ import annotations

import contextlib
import os
import socket

DAEMON_WARNING = 3 * 8 + 4
"""RFC 3164's number for facility daemon, severity warning."""
DAEMON_INFO = 3 * 8 + 6
"""RFC 3164's number for facility daemon, severity informational."""
SYSLOG_SOCKET = "/dev/log"


def single_line(text: str) -> str:
    """Return the text as one line without control characters: users choose the names in it."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def write_syslog(text: str, priority: int = DAEMON_WARNING) -> None:
    """Write a line to syslog; drop it if there is no syslog or its queue is full.

    The C library's syslog() blocks on a full queue, which any user can fill, and Slurm drains the
    node of a hook that takes too long. The format is RFC 3164's without a time; the daemon adds it.
    """
    message = f"<{priority}>canhazgpu[{os.getpid()}]: {single_line(text)}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.setblocking(False)
        log.sendto(message.encode(), SYSLOG_SOCKET)
