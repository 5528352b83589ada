"""A proxy before a private server: it counts round trips, and can let answers be lost."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from servers.private_redis import PrivateRedis


class StoreProxy:
    """Passes bytes to a server, for one connection at a time.

    With `lose_answers` an answer is lost after the command was carried out, and the connection
    with it. After `answers_left` answers nothing comes any more, and nothing is closed either.
    Each answer comes `delay_s` late. `round_trips` counts how often a client sent something and
    then waited, `connections` how often one came.
    """

    def __init__(self, server: PrivateRedis) -> None:
        self.path = server.directory / "proxy.sock"
        self.lose_answers = False
        self.answers_left: int | None = None
        self.delay_s = 0.0
        self.connections = 0
        self.round_trips = 0
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._listener.settimeout(0.05)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def url(self) -> str:
        """The URL of the server through this proxy."""
        login = f":{self._server.password}@" if self._server.password else ""
        return f"unix://{login}{self.path}"

    def __enter__(self) -> StoreProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._listener.close()
        self.path.unlink()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            with client, socket.socket(socket.AF_UNIX) as upstream:
                upstream.connect(str(self._server.socket))
                for one in (client, upstream):
                    one.settimeout(0.05)
                self._pass_on(client, upstream)

    def _pass_on(self, client: socket.socket, upstream: socket.socket) -> None:
        waits = False
        while not self._over.is_set():
            for source, target in ((client, upstream), (upstream, client)):
                try:
                    data = source.recv(65536)
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not data or (source is upstream and self.lose_answers):
                    return
                if source is client:
                    self.round_trips += not waits
                elif self.answers_left is not None and waits:
                    self.answers_left -= 1
                waits = source is client
                if not self._is_silent() and not self._send(target, data, late=not waits):
                    return

    def _is_silent(self) -> bool:
        return self.answers_left is not None and self.answers_left < 0

    def _send(self, target: socket.socket, data: bytes, *, late: bool) -> bool:
        """Send it, an answer late; returns False if nobody is there any more."""
        if late:
            self._over.wait(self.delay_s)
        with suppress(OSError):
            target.sendall(data)
            return True
        return False
