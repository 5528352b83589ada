"""A handler that was forked before its request came, so that the request does not wait for it.

It waits for one request, and ends with it, as any other. It is forked when nothing is under way,
and a request that comes while it is not there gets a handler of its own.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import NoReturn

from canhazgpu.agent.handler.handed_request import encode_handed
from canhazgpu.agent.request import Request
from canhazgpu.agent.single_child import SingleChild

Wait = Callable[[socket.socket], NoReturn]
"""What the forked child becomes: it takes the end of the pair at which the request arrives."""


class SpareHandler:
    """The spare handler, if there is one."""

    def __init__(self, wait: Wait, clock: Callable[[], float] = time.monotonic) -> None:
        self._wait = wait
        self._child = SingleChild("spare handler", clock)
        self._end: socket.socket | None = None
        self._is_wanted = True

    @property
    def is_missing(self) -> bool:
        """Whether there is none, and one may be forked."""
        return self._is_wanted and not self._child.lives and self._child.rest_s <= 0

    def start(self) -> None:
        """Fork one. Call it with signals blocked. Raises `OSError` where none can be started."""
        own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            own.setblocking(False)
            try:
                self._child.start(lambda: self._wait(its))
            except OSError:
                own.close()
                raise
        self._end = own

    def hand_over(self, request: Request) -> int:
        """Give the request to it; return its pid, 0 where there is none that takes it.

        The caller keeps the connection, and is the one who reaps the process from now on.
        """
        if self._end is None:
            return 0
        try:
            socket.send_fds(self._end, [encode_handed(request)], [request.connection.fileno()])
        except OSError:
            # It has ended, or the request is too long for one message.
            return 0
        self._close()
        return self._child.release()

    def reap(self) -> str:
        """Note that it has ended before its request, if it has; return its fault.

        One that was stopped is killed: a request handed to it would wait.
        """
        fault = self._child.reap()
        if not self._child.lives:
            self._close()
        return fault

    def end(self) -> None:
        """Let it end: nothing is handed to it any more."""
        self._is_wanted = False
        self._close()

    def _close(self) -> None:
        if self._end is not None:
            self._end.close()
            self._end = None
