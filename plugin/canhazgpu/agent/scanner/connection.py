"""A connection of the scanner's socket: one request, and its answers."""

from __future__ import annotations

import contextlib
import os
import socket

from canhazgpu.agent.peer import UnknownPeerError, peer_of
from canhazgpu.agent.scanner.messages import MAX_REQUEST_BYTES, Request, decode_request
from canhazgpu.agent.wire.framing import Inbox, WireError

REQUEST_TIME_S = 2.0
"""Time for a peer to send its request."""
ANSWER_TIME_S = 5.0
"""Time for a peer to read its answer."""


def may_ask(peer: socket.socket) -> bool:
    """Tell whether the peer is root, or the user of this process, by the kernel's word."""
    try:
        return peer_of(peer).uid in (0, os.geteuid())
    except UnknownPeerError:
        return False


class Connection:
    """A connected peer; `until` is when it is cut off (monotonic seconds), None for never."""

    def __init__(self, peer: socket.socket, now: float) -> None:
        peer.setblocking(False)
        self._peer = peer
        self._inbox = Inbox(max_bytes=MAX_REQUEST_BYTES)
        self._unsent = bytearray()
        self._is_last = False
        self.until: float | None = now + REQUEST_TIME_S
        self.is_over = False

    @property
    def descriptor(self) -> int:
        """The socket's number."""
        return self._peer.fileno()

    @property
    def sends(self) -> bool:
        """Whether it waits until the peer reads."""
        return bool(self._unsent)

    def receive(self) -> Request | None:
        """Return the request once it is whole. A peer that is gone, or sends other bytes, is over.

        A whole request is followed by nothing: what comes after it is the peer's end.
        """
        try:
            chunk = self._peer.recv(MAX_REQUEST_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            chunk = b""
        if not chunk or self.until is None or self._is_last:
            self.is_over = True
            return None
        try:
            self._inbox.add(chunk)
            message = self._inbox.take()
            request = None if message is None else decode_request(message)
        except WireError:
            self.is_over = True
            return None
        if request is None:
            return None
        self.is_over = bool(self._inbox.rest)
        self.until = None
        return None if self.is_over else request

    def send(self, answer: bytes, now: float, *, is_last: bool) -> None:
        """Send an answer; after the last one the connection is over."""
        self._unsent += answer
        self._is_last = is_last
        if is_last:
            self.until = now + ANSWER_TIME_S
        self.flush()

    def flush(self) -> None:
        """Send as much as the peer takes."""
        try:
            while self._unsent:
                del self._unsent[: self._peer.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self.is_over = True
        if self._is_last:
            self.is_over = True

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            self._peer.close()
