"""A proxy before a server that counts what clients send, get, and wait for."""

from __future__ import annotations

import contextlib
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
    """Passes bytes between clients at `path` and a server's Unix socket, in threads."""

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
        self._lock = threading.Lock()
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
        with self._lock:
            self.traffic = Traffic()

    def record(self) -> None:
        """Keep what clients send from now on."""
        self._recorded.clear()
        self._records = True

    def recorded(self) -> bytes:
        """Return what clients have sent since `record`, and keep no more."""
        self._records = False
        return bytes(self._recorded)

    def keep(self, data: bytes, *, is_question: bool) -> None:
        """Count what a client sent."""
        with self._lock:
            self.traffic.sent += len(data)
            self.traffic.round_trips += is_question
            if self._records:
                self._recorded += data

    def count_answer(self, data: bytes) -> None:
        """Count what the server sent."""
        with self._lock:
            self.traffic.received += len(data)

    def _serve(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self._listener, selectors.EVENT_READ)
            ready.register(self._woken, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    if key.fileobj is self._woken:
                        return
                    self._accept()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self._server))
        with self._lock:
            self.traffic.connections += 1
        pair = _Pair(self, client, server)
        # One thread for each way: a client that sends much reads no answer meanwhile.
        for pump in (pair.pass_questions, pair.pass_answers):
            threading.Thread(target=pump, daemon=True).start()


class _Pair:
    """A client's connection and the one to the server for it."""

    def __init__(self, proxy: CountingProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._waits = False

    def pass_questions(self) -> None:
        """Pass on what the client sends, to its end."""
        while data := self._received(self._client):
            # What is sent in pieces before the first answer is one question.
            is_question, self._waits = not self._waits, True
            self._proxy.keep(data, is_question=is_question)
            self._pass_on(data, self._server)

    def pass_answers(self) -> None:
        """Pass on what the server sends, to its end."""
        while data := self._received(self._server):
            # Before the client has it, which may end with it, and then all is counted.
            self._proxy.count_answer(data)
            self._waits = False
            self._pass_on(data, self._client)

    def _received(self, source: socket.socket) -> bytes:
        try:
            data = source.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            self._close()
        return data

    def _pass_on(self, data: bytes, target: socket.socket) -> None:
        try:
            target.sendall(data)
        except OSError:
            self._close()

    def _close(self) -> None:
        for one in (self._client, self._server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
