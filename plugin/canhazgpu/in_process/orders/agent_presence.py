"""Whether an agent serves this node, as every process of it can see."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

AGENT_SOCKET = Path("agent") / "agent.sock"
"""In the node's directory; `canhazgpu.agent.socket_files` makes it."""


def agent_listens(state_dir: Path) -> bool:
    """Return whether somebody listens at the socket of the node's agent; never waits."""
    path = state_dir / AGENT_SOCKET
    with contextlib.ExitStack() as stack:
        asked = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        asked.setblocking(False)
        try:
            opened = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, opened)
            # Short, whatever the path's length (unix(7)).
            asked.connect(f"/proc/self/fd/{opened}/{path.name}")
        except BlockingIOError:
            return True  # more wait than it has accepted
        except OSError:
            return False
    return True
