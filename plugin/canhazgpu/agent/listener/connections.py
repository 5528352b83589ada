"""Connections whose request has not arrived as a whole: they cost no process."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from canhazgpu.agent.callers.admitted_user import AdmittedUser
from canhazgpu.agent.peer import Peer
from canhazgpu.agent.request import RequestSocket
from canhazgpu.agent.wire.framing import Inbox, Message, encode

REQUEST_WAIT_S = 5.0
"""Longest time from a peer's connect to the end of its request."""
CHUNK_BYTES = 65536


@dataclass(slots=True)
class Connection:
    """A peer that was let in, and whom it counts for.

    `ends_at` is in seconds of the monotonic clock.
    """

    socket: socket.socket
    arrived_at: RequestSocket
    peer: Peer
    user: AdmittedUser
    ends_at: float
    inbox: Inbox = field(default_factory=Inbox)

    def read(self) -> bytes | None:
        """Read what has arrived; return the request once it is complete, else None.

        Raises `EOFError` where the peer is gone, and `WireError` for what is no request.
        """
        try:
            chunk = self.socket.recv(CHUNK_BYTES)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise EOFError from exc
        if not chunk:
            raise EOFError
        self.inbox.add(chunk)
        return self.inbox.take()


def close_socket(connected: socket.socket, last_words: Message | None = None) -> None:
    """Close a socket, after a message for a peer that reads one."""
    if last_words is not None:
        with contextlib.suppress(OSError):
            connected.send(encode(last_words))
    connected.close()


class Connections:
    """The connections that wait for their requests, by descriptor."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_descriptor: dict[int, Connection] = {}

    def add(
        self, accepted: socket.socket, arrived_at: RequestSocket, peer: Peer, user: AdmittedUser
    ) -> Connection:
        """Take a connection that was just accepted."""
        accepted.setblocking(False)
        made = Connection(accepted, arrived_at, peer, user, self._clock() + REQUEST_WAIT_S)
        self._by_descriptor[accepted.fileno()] = made
        return made

    def adopt(self, connection: Connection, received: bytes) -> None:
        """Take one that the program has let in that this process was before."""
        connection.inbox.add(received)
        self._by_descriptor[connection.socket.fileno()] = connection

    def find(self, descriptor: int) -> Connection | None:
        """Return the connection with this descriptor."""
        return self._by_descriptor.get(descriptor)

    def remove(self, connection: Connection) -> None:
        """Forget the connection; it stays open."""
        self._by_descriptor.pop(connection.socket.fileno(), None)

    def descriptors(self) -> Iterator[int]:
        """Yield the descriptors to wait for."""
        yield from self._by_descriptor

    def overdue(self) -> list[Connection]:
        """Return the connections whose time is over."""
        now = self._clock()
        return [one for one in self._by_descriptor.values() if one.ends_at <= now]

    def next_end_s(self) -> float | None:
        """Return how long it is until a connection's time is over, None without one."""
        times = [one.ends_at for one in self._by_descriptor.values()]
        return max(min(times) - self._clock(), 0.0) if times else None

    def all(self) -> list[Connection]:
        """Return all connections."""
        return list(self._by_descriptor.values())
