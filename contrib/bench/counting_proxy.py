"""A proxy before a server that counts what clients send, get, and wait for."""

from __future__ import annotations

import selectors
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 18


@dataclass
class Traffic:
    """What passed: bytes each way, connections, and how often a client waited for an answer."""

    connections: int = 0
    round_trips: int = 0
    sent: int = 0
    received: int = 0


class CountingProxy:
    """Passes bytes between clients at `path` and a server's Unix socket, in a thread of its own."""

    def __init__(self, path: Path, server: Path) -> None:
        self.path = path
        self.traffic = Traffic()
        self._recorded = bytearray()
        self._records = False
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o777)
        self._listener.listen()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> CountingProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.close()
        self._thread.join()
        self._listener.close()
        self.path.unlink()

    def reset(self) -> None:
        """Count from 0 again."""
        self.traffic = Traffic()

    def record(self) -> None:
        """Keep what clients send from now on."""
        self._recorded.clear()
        self._records = True

    def recorded(self) -> bytes:
        """Return what clients have sent since `record`, and keep no more."""
        self._records = False
        return bytes(self._recorded)

    def keep(self, data: bytes) -> None:
        """Count what a client sent."""
        self.traffic.sent += len(data)
        if self._records:
            self._recorded += data

    def _serve(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self._listener, selectors.EVENT_READ, None)
            ready.register(self._woken, selectors.EVENT_READ, None)
            while True:
                for key, _ in ready.select():
                    if key.fileobj is self._woken:
                        return
                    if key.fileobj is self._listener:
                        self._accept(ready)
                    else:
                        key.data(ready)

    def _accept(self, ready: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self._server))
        self.traffic.connections += 1
        pair = _Pair(self, client, server)
        ready.register(client, selectors.EVENT_READ, pair.from_client)
        ready.register(server, selectors.EVENT_READ, pair.from_server)


class _Pair:
    """A client's connection and the one to the server for it."""

    def __init__(self, proxy: CountingProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._waits = False

    def from_client(self, ready: selectors.BaseSelector) -> None:
        if data := self._received(ready, self._client):
            self._proxy.keep(data)
            # What is sent in pieces before the first answer is one question.
            self._proxy.traffic.round_trips += not self._waits
            self._waits = True
            self._pass_on(ready, data, self._server)

    def from_server(self, ready: selectors.BaseSelector) -> None:
        if data := self._received(ready, self._server):
            # Before the client has it, which may end with it, and then all is counted.
            self._proxy.traffic.received += len(data)
            self._waits = False
            self._pass_on(ready, data, self._client)

    def _received(self, ready: selectors.BaseSelector, source: socket.socket) -> bytes:
        try:
            data = source.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            self._close(ready)
        return data

    def _pass_on(self, ready: selectors.BaseSelector, data: bytes, target: socket.socket) -> None:
        try:
            target.sendall(data)
        except OSError:
            self._close(ready)

    def _close(self, ready: selectors.BaseSelector) -> None:
        if self._client.fileno() < 0:
            return  # the other end was at its end too
        for one in (self._client, self._server):
            ready.unregister(one)
            one.close()
