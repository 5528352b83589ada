"""The clients that wait: how they come to the watcher, what is written to them, how they leave."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from canhazgpu.agent.handler.watcher_handover import TAKEN
from canhazgpu.agent.peer import UnknownPeerError, peer_of
from canhazgpu.agent.wire.framing import Inbox, WireError, decode
from canhazgpu.errors import InputError
from canhazgpu.in_process.watching.waiting_request import WaitingRequest, waiting_from_dict
from canhazgpu.ledger.values import RECORD_ERRORS
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.process_watch import ProcessWatch

HAND_OVER_TIME_S = 5.0
"""Time for a handler to send the request of its client."""


class HandingOver:
    """A connection of the watcher's socket, by which a handler hands over one client."""

    def __init__(self, peer: socket.socket, now: float) -> None:
        peer.setblocking(False)
        self._peer = peer
        self._inbox = Inbox()
        self._connection: socket.socket | None = None
        self.until = now + HAND_OVER_TIME_S
        self.is_over = False

    @property
    def descriptor(self) -> int:
        """The socket's number."""
        return self._peer.fileno()

    def receive(self) -> tuple[WaitingRequest, socket.socket] | None:
        """Return the request and the client's connection, once both have come."""
        try:
            chunk, descriptors, _, _ = socket.recv_fds(self._peer, 1 << 18, 2)
        except BlockingIOError:
            return None
        except OSError:
            chunk, descriptors = b"", []
        self._keep(descriptors)
        self.is_over = not chunk
        try:
            self._inbox.add(chunk)
            frame = self._inbox.take()
            waiting = None if frame is None else waiting_from_dict(decode(frame))
        except (WireError, InputError, AttributeError, *RECORD_ERRORS):
            self.is_over = True
            return None
        if waiting is None:
            return None
        self.is_over = True
        connection, self._connection = self._connection, None
        return None if connection is None else (waiting, connection)

    def confirm(self) -> None:
        """Say that the request was taken."""
        with contextlib.suppress(OSError):
            self._peer.send(TAKEN)

    def close(self) -> None:
        """Close the connection."""
        self._peer.close()
        if self._connection is not None:
            self._connection.close()

    def _keep(self, descriptors: list[int]) -> None:
        for number in descriptors:
            if self._connection is not None:
                os.close(number)
                continue
            self._connection = socket.socket(fileno=number)


def may_hand_over(peer: socket.socket) -> bool:
    """Tell whether the peer is root, or the user of this process, by the kernel's word."""
    try:
        return peer_of(peer).uid in (0, os.geteuid())
    except UnknownPeerError:
        return False


class WaitingClient:
    """A client's process and connection."""

    def __init__(self, client: ProcessId, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._process = ProcessWatch([client])

    def descriptors(self) -> Iterator[int]:
        """Yield what becomes readable when the client is gone."""
        yield self._connection.fileno()
        yield from self._process.descriptors

    def has_ended(self) -> bool:
        """Tell whether its process has ended."""
        return self._process.wait_for_exit(0)

    def is_gone(self) -> bool:
        """Tell whether it has ended, or closed its connection.

        It says nothing while it waits: one that does breaks the rule, and is let go.
        """
        if self.has_ended():
            return True
        try:
            self._connection.recv(1)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def write(self, content: bytes) -> bool:
        """Write to it; return False for one that is gone, or does not read what it is told."""
        try:
            return self._connection.send(content) == len(content) if content else True
        except OSError:
            return False

    def close(self) -> None:
        """Close the connection and the watch."""
        self._process.close()
        self._connection.close()
