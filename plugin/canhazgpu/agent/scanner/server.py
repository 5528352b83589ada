"""The scanner: takes requests, and has readers scan for them; it opens no driver itself.

What reads the GPUs can hang where no signal ends it. So a reader is a process of its own, and the
scanner is never one that hangs. It is one thread, and ends when it has been idle.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time

from canhazgpu.agent.scanner import reader as reading
from canhazgpu.agent.scanner.capabilities import drop_capabilities
from canhazgpu.agent.scanner.connection import Connection, may_ask
from canhazgpu.agent.scanner.messages import (
    TAKEN,
    ReleaseRequest,
    Request,
    encode_failure,
    encode_released,
    encode_scan,
)
from canhazgpu.agent.scanner.reader_process import ReaderProcess
from canhazgpu.agent.scanner.schedule import (
    Action,
    Deliver,
    End,
    Fail,
    Kill,
    Order,
    Schedule,
    Start,
)
from canhazgpu.node.daemonize import close_descriptors_except, duplicate_above_stdio
from canhazgpu.probe.bounded_child import die_with_parent

DEFAULT_IDLE_S = 5.0
MAX_CONNECTIONS = 256
"""More wait in the socket's queue."""


def serve(
    listening_socket: socket.socket, *, idle_s: float = DEFAULT_IDLE_S, parent: int | None = None
) -> None:
    """Serve until nothing was asked for `idle_s` seconds, and no reader is left.

    Call it in a new process, and end that by `os._exit` when it returns: it closes every other
    descriptor, and dies with its parent. `parent` is the pid of that; by default whose child it is.
    A request that comes just before the end stays in the socket's queue for the next scanner.
    """
    die_with_parent(parent or os.getppid())()
    listening = _isolated(listening_socket)
    _Server(listening, idle_s).run()


def _isolated(listening_socket: socket.socket) -> socket.socket:
    """Leave the parent's terminal, directory, handlers, descriptors and needless rights."""
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setsid()
    os.chdir("/")
    number = duplicate_above_stdio(listening_socket.fileno())
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(one, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    listening_socket.detach()
    close_descriptors_except({number})
    listening = socket.socket(fileno=number)
    listening.setblocking(False)
    drop_capabilities()
    return listening


class _Server:
    def __init__(self, listening: socket.socket, idle_s: float) -> None:
        self._listening = listening
        self._idle_s = idle_s
        self._schedule = Schedule(idle_s)
        self._connections: dict[int, Connection] = {}
        self._readers: dict[int, ReaderProcess] = {}
        self._releases: dict[int, tuple[float, frozenset[int]]] = {}
        """Those who wait for the end of readers: until when, and for which."""
        self._connected = 0
        self._last_use = time.monotonic()
        self._ended_child = _wake_on_ended_child()

    def run(self) -> None:
        """Serve until the scanner has been idle."""
        while not self._is_idle(time.monotonic()):
            ready = self._wait()
            if self._listening.fileno() in ready:
                self._accept()
            self._hear(ready)
            self._hear_readers()
            self._act()
            self._answer_releases()
            self._cut_off()

    def _is_idle(self, now: float) -> bool:
        if self._connections or self._readers:
            self._last_use = now
        return now >= self._last_use + self._idle_s

    def _wait(self) -> set[int]:
        """Wait for an event or the next time; return the descriptors that have something."""
        poll = select.poll()
        poll.register(self._ended_child, select.POLLIN)
        if len(self._connections) < MAX_CONNECTIONS:
            poll.register(self._listening, select.POLLIN)
        for one in self._connections.values():
            poll.register(one.descriptor, select.POLLIN | (select.POLLOUT if one.sends else 0))
        for reader in self._readers.values():
            poll.register(reader.answers, select.POLLIN)
        return {number for number, _ in poll.poll(self._wait_ms())}

    def _wait_ms(self) -> float | None:
        times = [one.until for one in self._connections.values() if one.until is not None]
        times += [deadline for deadline, _ in self._releases.values()]
        if (next_time := self._schedule.next_time()) is not None:
            times.append(next_time)
        if not self._connections and not self._readers:
            times.append(self._last_use + self._idle_s)
        return max(min(times) - time.monotonic(), 0) * 1000 + 1 if times else None

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # gone again, or no descriptor is left
            peer, _ = self._listening.accept()
            if may_ask(peer):
                self._connected += 1
                self._connections[self._connected] = Connection(peer, time.monotonic())
            else:
                peer.close()

    def _hear(self, ready: set[int]) -> None:
        for number, one in list(self._connections.items()):
            if one.descriptor not in ready:
                continue
            if one.sends:
                one.flush()
            request = one.receive()
            if request is not None:
                self._take(number, request)
            if one.is_over:
                self._close(number)

    def _take(self, number: int, request: Request) -> None:
        now = time.monotonic()
        if isinstance(request, ReleaseRequest):
            self._schedule.release(now)
            self._releases[number] = request.deadline, self._schedule.readers
        else:
            self._schedule.request(number, request.settings, request.deadline, now)
            self._connections[number].send(TAKEN, now, is_last=False)

    def _close(self, number: int) -> None:
        self._connections.pop(number).close()
        self._releases.pop(number, None)
        self._schedule.drop(number)

    def _hear_readers(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._ended_child, 4096)
        for number, reader in list(self._readers.items()):
            how = reader.how_it_ended()
            self._hear_answers(number, reader)
            if how is not None:
                self._schedule.ended(number, how)
                self._readers.pop(number).close()

    def _hear_answers(self, number: int, reader: ReaderProcess) -> None:
        now = time.monotonic()
        try:
            while (answer := reader.answer()) is not None:
                kind, scan = answer
                if kind == reading.STALE:
                    self._schedule.found_stale(number, now)
                else:
                    self._schedule.scanned(number, scan, now, stays=kind == reading.STAYS)
        except ValueError:
            reader.kill()

    def _act(self) -> None:
        while actions := self._schedule.actions(time.monotonic()):
            for action in actions:
                self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case Start(number, settings):
                try:
                    self._readers[number] = ReaderProcess(settings)
                except OSError as exc:
                    self._schedule.ended(number, f"cannot start a process: {exc.strerror}")
                else:
                    self._readers[number].order()
            case Order(number):
                self._readers[number].order()
            case End(number):
                self._readers[number].end()
            case Kill(number):
                self._readers[number].kill()
            case Deliver(request, scan):
                self._answer(request, encode_scan(scan))
            case Fail(request, reason):
                self._answer(request, encode_failure(reason))

    def _answer(self, number: int, answer: bytes) -> None:
        one = self._connections.get(number)
        if one is not None:
            one.send(answer, time.monotonic(), is_last=True)
            if one.is_over:
                self._close(number)

    def _answer_releases(self) -> None:
        for number, (deadline, readers) in list(self._releases.items()):
            left = readers & self._schedule.readers
            if not left or deadline <= time.monotonic():
                del self._releases[number]
                holding = tuple(self._readers[one].pid for one in sorted(left))
                self._answer(number, encode_released(holding))

    def _cut_off(self) -> None:
        now = time.monotonic()
        for number, one in list(self._connections.items()):
            if one.until is not None and one.until <= now:
                self._close(number)


def _wake_on_ended_child() -> int:
    """Return a descriptor that can be read after a child has ended."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    return read
