"""Hand a client that waits over to the watcher: its request, and its connection (SCM_RIGHTS)."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from canhazgpu.agent.peer import UnknownPeerError, peer_uid
from canhazgpu.agent.socket_files import short_address
from canhazgpu.agent.wire.framing import encode
from canhazgpu.in_process.watching.waiting_request import WaitingRequest, waiting_to_dict

WATCHER_SOCKET = "watcher.sock"
TAKEN = b'{"parameters":{}}\0'
"""The answer: the request is whole, and is the watcher's from now on."""


class WatcherUnavailableError(Exception):
    """No watcher takes the request: none can be started, or it does not answer in time."""


def hand_over(
    socket_path: Path, connection: socket.socket, waiting: WaitingRequest, timeout_s: float
) -> None:
    """Give the request to the watcher; raises `WatcherUnavailableError` after `timeout_s`.

    The caller keeps its end of the connection, and says nothing on it any more. After an error the
    watcher may have the request all the same: the client is then to be told to ask again.
    """
    message = encode(waiting_to_dict(waiting))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as watcher:
        watcher.settimeout(timeout_s)
        try:
            with short_address(socket_path) as address:
                watcher.connect(address)
            if peer_uid(watcher) not in (0, os.geteuid()):
                raise WatcherUnavailableError("another user listens there")
            sent = socket.send_fds(watcher, [message], [connection.fileno()])
            if sent < len(message):
                watcher.sendall(message[sent:])
            answer = watcher.recv(len(TAKEN), socket.MSG_WAITALL)
        except (OSError, UnknownPeerError) as exc:
            raise WatcherUnavailableError(str(exc)) from exc
    if answer != TAKEN:
        raise WatcherUnavailableError("it does not take the request")
