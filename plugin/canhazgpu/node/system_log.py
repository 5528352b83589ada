"""Lines for this node's syslog."""

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
    """Return the text as one line without control characters: names in it are their users'."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def write_syslog(text: str, priority: int = DAEMON_WARNING) -> None:
    """Write a line to syslog, where there is one that takes it at once.

    The C library's syslog() waits for a full queue, which any user can fill, and a hook that waits
    drains its node. The text's form is RFC 3164's without a time, which the daemon adds.
    """
    message = f"<{priority}>canhazgpu[{os.getpid()}]: {single_line(text)}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.setblocking(False)
        log.sendto(message.encode(), SYSLOG_SOCKET)
