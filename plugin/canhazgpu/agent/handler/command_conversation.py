"""The messages with a process that has a command carried out for it."""

from __future__ import annotations

import os
import select
import signal
from fcntl import F_GETFL, F_SETFL, F_SETOWN, fcntl
from types import FrameType

from canhazgpu.agent.command_runner import Execution
from canhazgpu.agent.handler.calling_process import ConnectedProcess
from canhazgpu.agent.handler.command_messages import CommandMessages
from canhazgpu.agent.handler.conversation import LIMIT_MARGIN_S
from canhazgpu.agent.handler.proven_conversation import ProvenConversation
from canhazgpu.agent.handler_reports import Report
from canhazgpu.agent.request import Request
from canhazgpu.agent.request_state import HandlerEvent
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import Message, encode
from canhazgpu.agent.wire.interface import Call

CLOSE_WAIT_S = 1.0
"""Longest time for a caller to close the connection after the last reply."""


class CommandConversation(ProvenConversation):
    """`ProvenConversation` of a command: the outcome is a stream of what the command writes."""

    def __init__(self, request: Request) -> None:
        super().__init__(request, interface.COMMAND)
        self._messages = CommandMessages(self._send_all, takes_several=False)

    @property
    def request(self) -> Request:
        """The connection, and what the kernel says of its peer."""
        return self._request

    def process(self) -> ConnectedProcess:
        """Return the process that asks; only where `pidfd` is not None."""
        if self.pidfd is None:
            raise AssertionError("the process has ended before")
        return ConnectedProcess(self._request.peer, self.pidfd)

    def _is_confirm(self, call: Call) -> bool:
        if call.method != interface.PROCEED or not self._is_nonce(call):
            return False
        self._messages.takes_several = call.more
        return True

    @property
    def takes_several(self) -> bool:
        """Whether the caller takes several replies, and so learns of what comes meanwhile."""
        return self._messages.takes_several

    def write_output(self, text: str) -> None:
        """Send what the command wrote to its standard output; raises `OSError`."""
        self._messages.write_output(text)

    def write_errors(self, text: str) -> None:
        """Send what the command wrote to its standard error; raises `OSError`."""
        self._messages.write_errors(text)

    def _send_all(self, message: Message) -> None:
        self._request.connection.sendall(encode(message))

    def end(self, outcome: int | Execution) -> bool:
        """Send the command's outcome; return whether it was sent."""
        # A caller that has its outcome goes: this process still has to say that it is served.
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        self._move(HandlerEvent.OUTCOME_DECIDED)
        sent = self._send(self._messages.last(outcome))
        if sent:
            self._move(HandlerEvent.ANSWER_SENT)
        self.report_served()
        return sent

    def wait_for_close(self) -> None:
        """Let the caller close the connection: a Varlink client does not expect its end."""
        poll = select.poll()
        poll.register(self._request.connection, select.POLLRDHUP)
        poll.poll(CLOSE_WAIT_S * 1000)

    def wait_for_others(self, longest_s: float) -> None:
        """Be given so much longer (seconds), as nothing is left to do here but to wait."""
        allowed_s = longest_s + LIMIT_MARGIN_S
        self._report(Report(os.getpid(), interface.COMMAND, allowed_s))
        self.end_with_peer()

    def end_with_peer(self) -> None:
        """From now on end this process when the caller is gone: nothing is left to be done.

        Without it, a process that waits for the store would never learn of it.
        """
        connection = self._request.connection
        connection.settimeout(None)

        def end_if_gone(_number: int, _frame: FrameType | None) -> None:
            poll = select.poll()
            poll.register(connection, select.POLLRDHUP)
            if poll.poll(0):
                self.report_served()
                os._exit(0)

        signal.signal(signal.SIGIO, end_if_gone)
        fcntl(connection, F_SETOWN, os.getpid())
        fcntl(connection, F_SETFL, fcntl(connection, F_GETFL) | os.O_ASYNC)
        # It may have gone before.
        end_if_gone(0, None)
