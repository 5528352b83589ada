"""The two steps of a hook's request, as its handler takes them: see `agent.request_state`."""

from __future__ import annotations

import os
import select
import socket
import time
from typing import Any

from canhazgpu.agent.handler_reports import Report, write_report
from canhazgpu.agent.peer import UnknownPeerError, has_ended, peer_pidfd
from canhazgpu.agent.request import Request
from canhazgpu.agent.request_state import (
    HandlerEvent,
    HandlerState,
    may_act,
    next_handler_state,
)
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import Inbox, Message, WireError, decode, encode
from canhazgpu.agent.wire.interface import Call

CONFIRM_WAIT_S = 5.0
"""Longest wait for a ready request's Confirm; its client answers at once, or has given up."""
SEND_WAIT_S = 5.0
LIMIT_MARGIN_S = 10.0
"""What the listener allows beyond the time that a request may take: the hook ends itself first."""


class Conversation:
    """The messages with one hook; `state` is how far the request is."""

    def __init__(self, request: Request, method: str) -> None:
        self._request = request
        self._method = method
        self._inbox = Inbox(request.rest)
        self.state = HandlerState.CONNECTED
        self._peer: int | None = None
        self._is_reported = False
        try:
            self._peer = peer_pidfd(request.connection, request.peer)
            self._move(HandlerEvent.PEER_NAMED)
        except UnknownPeerError:
            self._move(HandlerEvent.PEER_REFUSED)
        request.connection.settimeout(SEND_WAIT_S)

    @property
    def pid(self) -> int:
        """The hook's client, which the hook's script started."""
        return self._request.peer.pid

    @property
    def may_act(self) -> bool:
        """Whether the request may change anything."""
        return may_act(self.state)

    @property
    def is_done(self) -> bool:
        """Whether the peer has the outcome."""
        return self.state is HandlerState.DONE

    def close(self) -> None:
        """Let go of the peer's process; the connection is the caller's."""
        if self._peer is not None:
            os.close(self._peer)
            self._peer = None

    def confirms(self, limit_s: float) -> bool:
        """Say that the request is ready; return whether the hook has it carried out.

        The work takes `limit_s` at most, in seconds.
        """
        if self.state is not HandlerState.NAMED:
            return self.may_act
        allowed_s = limit_s + LIMIT_MARGIN_S
        self._report(Report(os.getpid(), self._method, allowed_s + CONFIRM_WAIT_S))
        if not self._send(interface.reply({**self._ready_parameters(), "limit_s": allowed_s})):
            self._move(HandlerEvent.PEER_GONE)
            return False
        self._move(HandlerEvent.READY_SENT)
        self._move(self._wait_for_confirm())
        return self.may_act

    def is_gone(self) -> bool:
        """Return whether the hook's client has ended, or has closed the connection."""
        if self._peer is None or has_ended(self._peer):
            return True
        poll = select.poll()
        poll.register(self._request.connection, select.POLLRDHUP)
        return bool(poll.poll(0))

    def answer(self, parameters: dict[str, Any]) -> None:
        """Send the outcome, if the request was confirmed."""
        if not self.may_act:
            return
        self._move(HandlerEvent.OUTCOME_DECIDED)
        if self._send(interface.reply(parameters)):
            self._move(HandlerEvent.ANSWER_SENT)
        self.report_served()

    def report_served(self) -> None:
        """Tell the listener, once, that the request was carried out."""
        if not self._is_reported:
            self._is_reported = True
            self._report(Report(os.getpid(), self._method, is_served=True))

    def _wait_for_confirm(self) -> HandlerEvent:
        ends_at = time.monotonic() + CONFIRM_WAIT_S
        try:
            while (frame := self._inbox.take()) is None:
                self._request.connection.settimeout(max(ends_at - time.monotonic(), 0.001))
                chunk = self._received()
                if not chunk:
                    return HandlerEvent.PEER_GONE
                self._inbox.add(chunk)
            is_confirm = self._is_confirm(interface.parse_call(decode(frame)))
        except TimeoutError:
            return HandlerEvent.DEADLINE_PASSED
        except (OSError, WireError):
            return HandlerEvent.PEER_GONE
        finally:
            self._request.connection.settimeout(SEND_WAIT_S)
        if not is_confirm:
            self._send(interface.error(interface.OUT_OF_TURN))
            return HandlerEvent.PEER_GONE
        # What a client sent before it ended may still be read, and confirms nothing.
        return HandlerEvent.PEER_GONE if self.is_gone() else HandlerEvent.PEER_CONFIRMED

    def _ready_parameters(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "agent": self._request.agent,
            "interface": interface.VERSION,
        }

    def _received(self) -> bytes:
        """Return what came; raises `OSError`, also for what is not the peer's."""
        return self._request.connection.recv(4096)

    def _is_confirm(self, call: Call) -> bool:
        return call.method == interface.CONFIRM

    def _send(self, message: Message) -> bool:
        try:
            self._request.connection.sendall(encode(message))
        except OSError:
            return False
        return True

    def _move(self, event: HandlerEvent) -> None:
        self.state = next_handler_state(self.state, event)

    def _report(self, report: Report) -> None:
        write_report(self._request.reports, report)


def send_message(connection: socket.socket, message: Message) -> None:
    """Send one message; a peer that is gone gets none."""
    try:
        connection.settimeout(SEND_WAIT_S)
        connection.sendall(encode(message))
    except OSError:
        return
