"""A connection of the scanner's socket: one request, and its answers."""

from __future__ import annotations

import contextlib
import os
import socket
import struct

from canhazgpu.agent.scanner.messages import (
    END,
    MAX_REQUEST_BYTES,
    MessageError,
    Request,
    decode_request,
)

REQUEST_TIME_S = 2.0
"""Time for a peer to send its request."""
ANSWER_TIME_S = 5.0
"""Time for a peer to read its answer."""
_CREDENTIALS = struct.Struct("3i")


def may_ask(peer: socket.socket) -> bool:
    """Tell whether the peer is root, or the user of this process, by the kernel's word."""
    try:
        found = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return False
    pid, uid, _ = _CREDENTIALS.unpack(found)
    return pid > 0 and uid in (0, os.geteuid())


class Connection:
    """A connected peer; `until` is when it is cut off (monotonic seconds), None for never."""

    def __init__(self, peer: socket.socket, now: float) -> None:
        peer.setblocking(False)
        self._peer = peer
        self._received = bytearray()
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
        self._received += chunk
        asked = self.until is None or self._is_last
        if not chunk or asked or len(self._received) > MAX_REQUEST_BYTES:
            self.is_over = True
            return None
        message, end, rest = bytes(self._received).partition(END)
        if not end:
            return None
        try:
            request = decode_request(message)
        except MessageError:
            self.is_over = True
            return None
        self.is_over = bool(rest)
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
