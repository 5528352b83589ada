"""Handlers of hooks that wait for a request, so that the request does not wait for them.

One is forked when nothing is under way. One that carried out a request as usual, and left nothing
behind, waits for another. A hook for which none waits gets a new one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from canhazgpu.agent.handler.request_message import TAKES_ANOTHER, encode_for_handler
from canhazgpu.agent.request import Request
from canhazgpu.agent.single_child import REST_S, SingleChild

MAX_WAITING = 8
"""Handlers that may wait: for jobs that start at once on all GPUs of a node. Each keeps about
13 MiB of its own, and all but one end after `IDLE_S`."""
IDLE_S = 10.0
"""How long more than one wait after the last request."""

Wait = Callable[[socket.socket, bool], NoReturn]
"""What the forked child becomes: it takes the end of the pair at which requests arrive, and whether
there is time to prepare for them."""


class _Handler:
    """A handler, and the listener's end of its pair. Raises `OSError` if none can be started."""

    def __init__(self, wait: Wait, clock: Callable[[], float], *, prepares: bool) -> None:
        self.child = SingleChild("spare handler", clock)
        self.end, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self.end.setblocking(False)
            try:
                self.child.start(lambda: wait(its, prepares))
            except OSError:
                self.end.close()
                raise

    def takes(self, request: Request) -> bool:
        """Give the request to it; False where it has ended or the request is too long."""
        try:
            socket.send_fds(self.end, [encode_for_handler(request)], [request.connection.fileno()])
        except OSError:
            return False
        return True

    def takes_another(self) -> bool:
        """Return whether it said so; False where it has ended."""
        with contextlib.suppress(OSError):
            return os.read(self.end.fileno(), 1) == TAKES_ANOTHER
        return False


class SpareHandlers:
    """Those that wait, and those that carry out a request and may wait again."""

    def __init__(self, wait: Wait, clock: Callable[[], float] = time.monotonic) -> None:
        self._wait = wait
        self._clock = clock
        self._waiting: list[_Handler] = []
        self._busy: dict[int, _Handler] = {}
        """By pid: whoever was handed their request reaps them."""
        self._ending: list[_Handler] = []
        self._is_wanted = True
        self._rests_until = 0.0
        self._last_use = 0.0

    @property
    def is_missing(self) -> bool:
        """Whether none waits, and one may be forked."""
        return self._is_wanted and not self._waiting and self._rests_until <= self._clock()

    @property
    def wait_s(self) -> float | None:
        """How long it is until some have waited for long enough, None where none will have."""
        if len(self._waiting) < 2:
            return None
        return max(self._last_use + IDLE_S - self._clock(), 0.0)

    @property
    def descriptors(self) -> Iterator[int]:
        """What becomes readable when one takes another request, or has ended."""
        return (one.end.fileno() for one in self._busy.values())

    def start(self) -> None:
        """Fork one. Call it with signals blocked. Raises `OSError` where none can be started."""
        self._waiting.append(self._started(prepares=True))

    def hand_over(self, request: Request) -> int:
        """Give the request to one; return its pid, 0 where the request is too long.

        The caller keeps the connection, and is the one who reaps the process from now on. Call it
        with signals blocked. Raises `OSError` where no process can be started.
        """
        while self._waiting:
            # The one that waits for the shortest time has used most of its memory before.
            handler = self._waiting.pop()
            if handler.takes(request):
                return self._note_busy(handler)
            self._let_end(handler)
        if not self._is_wanted:
            return 0
        handler = self._started(prepares=False)
        if handler.takes(request):
            return self._note_busy(handler)
        self._let_end(handler)
        return 0

    def said_more(self, ready: set[int]) -> list[int]:
        """Return the pids of those that take another request, by the descriptors that are ready."""
        found = []
        for pid, handler in list(self._busy.items()):
            if handler.end.fileno() in ready:
                if handler.takes_another() and self._may_wait():
                    found.append(pid)
                else:
                    self.forget(pid)
        return found

    def keep(self, pid: int) -> None:
        """Have one that takes another request wait for it; it is reaped here again."""
        handler = self._busy.pop(pid)
        handler.child.adopt(pid)
        self._waiting.append(handler)

    def forget(self, pid: int) -> None:
        """Hand nothing more to one that was busy: it ends, or has ended; its caller reaps it."""
        handler = self._busy.pop(pid, None)
        if handler is not None:
            handler.end.close()

    def reap(self) -> Iterator[str]:
        """Note those that have ended while they waited; yield their faults.

        One that was stopped is killed: a request handed to it would wait.
        """
        if self.wait_s == 0.0:
            for handler in self._waiting[:-1]:
                self._let_end(handler)
            del self._waiting[:-1]
        for handlers in (self._waiting, self._ending):
            for handler in list(handlers):
                if fault := handler.child.reap():
                    self._rests_until = self._clock() + handler.child.rest_s
                    yield fault
                if not handler.child.lives:
                    handler.end.close()
                    handlers.remove(handler)

    def end(self) -> None:
        """Let them end: nothing is handed to them any more."""
        self._is_wanted = False
        for handler in self._waiting:
            self._let_end(handler)
        self._waiting = []

    def resume(self) -> None:
        """Have handlers again after `end_and_forget`."""
        self._is_wanted = True

    def end_and_forget(self) -> list[int]:
        """Let those end that wait; return their pids: the caller reaps them."""
        self.end()
        ending, self._ending = self._ending, []
        return [one.child.release() for one in ending if one.child.lives]

    def _started(self, *, prepares: bool) -> _Handler:
        try:
            return _Handler(self._wait, self._clock, prepares=prepares)
        except OSError:
            self._rests_until = self._clock() + REST_S
            raise

    def _may_wait(self) -> bool:
        return self._is_wanted and len(self._waiting) < MAX_WAITING

    def _note_busy(self, handler: _Handler) -> int:
        self._last_use = self._clock()
        pid = handler.child.release()
        self._busy[pid] = handler
        return pid

    def _let_end(self, handler: _Handler) -> None:
        handler.end.close()
        self._ending.append(handler)
