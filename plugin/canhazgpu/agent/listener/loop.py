"""The listener: accepts, asks the kernel who calls, applies the limits, forks a handler.

One thread. It parses nothing that a peer sends, and opens no store, no driver and no name service.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from canhazgpu.agent.callers.admitted_user import AdmittedUsers
from canhazgpu.agent.handler_reports import Reports
from canhazgpu.agent.listener.activity import Activity
from canhazgpu.agent.listener.admission import Admission
from canhazgpu.agent.listener.children import Children, Ended
from canhazgpu.agent.listener.connections import Connection, Connections, close_socket
from canhazgpu.agent.listener.forking import blocked_signals, end_after
from canhazgpu.agent.listener.helpers import Helpers
from canhazgpu.agent.listener.requests_under_way import (
    adopted_children,
    adopted_connections,
    children_to_pass_on,
    connections_to_pass_on,
)
from canhazgpu.agent.peer import UnknownPeerError, overflow_uid, peer_of
from canhazgpu.agent.reexecution.inherited_state import (
    InheritedChild,
    InheritedConnection,
    InheritedState,
)
from canhazgpu.agent.reexecution.leftovers import Leftovers
from canhazgpu.agent.request import Request, RequestSocket
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import Message, WireError

ACCEPTED_AT_ONCE = 32
"""Connections that are taken at one socket before the other is looked at."""
REST_S = 0.2
"""How long a socket is left alone at which nothing can be accepted: no descriptor, no memory."""
OUT_OF_MEMORY = "the agent got no memory, and rested for a moment"

Serve = Callable[[Request], NoReturn]
"""What a forked child becomes."""


@dataclass(slots=True)
class Listener:
    """Serves until `stop`; `serve` runs in a forked child for each request."""

    request_sockets: Mapping[RequestSocket, socket.socket]
    admission: Admission
    activity: Activity
    serve: Serve
    helpers: Helpers
    clock: Callable[[], float] = time.monotonic
    reports: Reports = field(default_factory=Reports)
    users: AdmittedUsers = field(default_factory=AdmittedUsers)
    leftovers: Leftovers = field(default_factory=Leftovers)
    _children: Children = field(default_factory=Children)
    _connections: Connections = field(default_factory=Connections)
    _closed_sockets: Mapping[RequestSocket, socket.socket] = field(default_factory=dict)
    _resting_until: dict[RequestSocket, float] = field(default_factory=dict)
    _overflow_uid: int = field(default_factory=overflow_uid)

    @property
    def busy(self) -> int:
        """How many requests are being carried out."""
        return len(self._children)

    @property
    def has_brief_requests(self) -> bool:
        """Whether a request is under way that will not go on for as long as its caller wants."""
        return self._children.has_brief

    def step(self, wake_up: int, longest_s: float | None = None) -> None:
        """Wait for something to happen, at most `longest_s`, and handle all that has.

        `wake_up` is a descriptor that becomes readable with a signal.
        """
        try:
            if not self.busy:
                self.helpers.start_spare()
            self._handle(self._wait(wake_up, longest_s), wake_up)
        except MemoryError:
            # What waits is still there for the next step.
            self.activity.fault(OUT_OF_MEMORY)
            time.sleep(REST_S)

    def _handle(self, ready: set[int], wake_up: int) -> None:
        if wake_up in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_up, 4096)
        self._note_children(self.helpers.handlers_that_may_wait(ready))
        self.helpers.start_needed(ready)
        for arrived_at, listening in self.request_sockets.items():
            if listening.fileno() in ready:
                self._accept(arrived_at, listening)
        for descriptor in ready:
            if connection := self._connections.find(descriptor):
                self._read(connection)
        for connection in self._connections.overdue():
            self._drop(connection)
        self._children.kill_overdue()

    def close_sockets(self) -> None:
        """Let nobody in any more, and turn away those whose request has not arrived."""
        self.request_sockets = {}
        self.helpers.end_spare()
        for connection in self._connections.all():
            self._drop(connection, _ending())

    def leave_waiting(self) -> None:
        """Accept nobody for now: who connects waits, and is not refused."""
        if not self._closed_sockets:
            self._closed_sockets, self.request_sockets = self.request_sockets, {}

    def let_in_again(self) -> None:
        """Accept again, after `leave_waiting`."""
        if self._closed_sockets:
            self.request_sockets, self._closed_sockets = self._closed_sockets, {}

    def handed_requests(self) -> tuple[tuple[InheritedConnection, ...], tuple[InheritedChild, ...]]:
        """Return what is under way, for the program that this process becomes."""
        return connections_to_pass_on(self._connections), children_to_pass_on(self._children)

    def adopt(self, handed: InheritedState) -> None:
        """Go on with what the program left under way that this process was before."""
        for child in adopted_children(handed):
            self._children.adopt(child)
            self.admission.count(child.arrived_at, child.user)
        for connection, received in adopted_connections(handed, self.users):
            self._connections.adopt(connection, received)
            self.admission.count(connection.arrived_at, connection.user)

    def kill_endless_children(self) -> None:
        """Kill the handlers that only look, for as long as their callers want."""
        self._children.kill_endless()

    def kill_children(self) -> None:
        """Kill the handlers."""
        self._children.kill_all()

    def _wait(self, wake_up: int, longest_s: float | None) -> set[int]:
        poll = select.poll()
        now = self.clock()
        waits = [longest_s, self._children.next_end_s(), self._connections.next_end_s()]
        for arrived_at, listening in self.request_sockets.items():
            rest_s = self._resting_until.get(arrived_at, now) - now
            if rest_s > 0:
                waits.append(rest_s)
            elif not self.admission.is_full(arrived_at):
                poll.register(listening, select.POLLIN)
        waits.extend(self.helpers.wait_with(poll))
        for descriptor in (wake_up, self.reports.read_end, *self._connections.descriptors()):
            poll.register(descriptor, select.POLLIN)
        known = [one for one in waits if one is not None]
        # One millisecond more: the poll must not end before the time that it waits for.
        timeout_ms = min(known) * 1000 + 1 if known else None
        return {descriptor for descriptor, _ in poll.poll(timeout_ms)}

    def _note_children(self, may_wait: Sequence[int]) -> None:
        """Take what handlers report, and the end of their requests; `may_wait` take another one."""
        for report in self.reports.received():
            self._children.note(report)
            if report.is_served:
                self.activity.served(report.method)
            if report.fault:
                self.activity.fault(report.fault)
        for pid in may_wait:
            if finished := self._children.finish(pid):
                self.helpers.keep_handler(pid)
                self._note_end(finished)
            else:
                self.helpers.forget_handler(pid)
        for ended in self._children.reap():
            self.helpers.forget_handler(ended.child.pid)
            self._note_end(ended)
        self.activity.children = len(self._children)
        self.helpers.reap()
        self.leftovers.reap()

    def _note_end(self, ended: Ended) -> None:
        self.admission.leave(ended.child.arrived_at, ended.child.user)
        if ended.fault:
            self.activity.fault(ended.fault)
        self.helpers.note_served()

    def _accept(self, arrived_at: RequestSocket, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if self.admission.is_full(arrived_at):
                return
            try:
                accepted, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                # A peer that left before it was accepted is none; the rest has to do with us.
                if not isinstance(exc, ConnectionError):
                    self.activity.fault(
                        f"cannot accept at the socket for {arrived_at.value}: {exc}"
                    )
                    self._resting_until[arrived_at] = self.clock() + REST_S
                return
            try:
                self._admit(arrived_at, accepted)
            except MemoryError:
                if self._connections.find(accepted.fileno()) is None:
                    accepted.close()
                raise

    def _admit(self, arrived_at: RequestSocket, accepted: socket.socket) -> None:
        try:
            peer = peer_of(accepted, self._overflow_uid)
        except UnknownPeerError:
            self._refuse(accepted, interface.error(interface.NOT_PERMITTED))
            return
        user = self.users.of(peer.uid)
        if arrived_at is RequestSocket.HOOKS and not peer.is_root:
            self._refuse(accepted, interface.error(interface.NOT_PERMITTED))
        elif not self.admission.admit(arrived_at, user):
            self._refuse(accepted, interface.error(interface.BUSY))
        else:
            # Its request is usually there already.
            self._read(self._connections.add(accepted, arrived_at, peer, user))

    def _refuse(self, accepted: socket.socket, why: Message) -> None:
        self.activity.refused += 1
        accepted.setblocking(False)
        close_socket(accepted, why)

    def _read(self, connection: Connection) -> None:
        try:
            frame = connection.read()
        except (EOFError, WireError):
            self._drop(connection)
            return
        if frame is not None:
            try:
                self._start_handler(connection, frame)
            except MemoryError:
                # Its request is taken from it, and does not come again.
                self._drop(connection)
                raise

    def _drop(self, connection: Connection, why: Message | None = None) -> None:
        self._connections.remove(connection)
        self.admission.leave(connection.arrived_at, connection.user)
        close_socket(connection.socket, why)

    def _start_handler(self, connection: Connection, frame: bytes) -> None:
        request = Request(
            connection.socket,
            frame,
            connection.inbox.rest,
            connection.arrived_at,
            connection.peer,
            self.activity.status(),
            os.getpid(),
            self.reports.write_end,
        )
        try:
            pid = (
                self.helpers.hand_over(request)
                if connection.arrived_at is RequestSocket.HOOKS
                else 0
            )
            pid = pid or self._forked(request)
        except OSError as exc:
            self.activity.fault(f"cannot start a process: {exc.strerror}")
            why = {"reason": f"cannot start a process: {exc.strerror}"}
            self._drop(connection, interface.error(interface.UNAVAILABLE, why))
            return
        self._connections.remove(connection)
        connection.socket.close()
        self._children.add(pid, connection.arrived_at, connection.user)
        self.activity.children = len(self._children)

    def _forked(self, request: Request) -> int:
        """Fork a handler for the request; return its pid."""
        with blocked_signals():
            pid = os.fork()
            if pid == 0:
                end_after(lambda: self.serve(request))
        return pid


def _ending() -> Message:
    return interface.error(interface.UNAVAILABLE, {"reason": "the agent ends"})
