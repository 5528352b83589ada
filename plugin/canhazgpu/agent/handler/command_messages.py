"""The replies to `Proceed`: what a command writes, and its outcome."""

from __future__ import annotations

from collections.abc import Callable

from canhazgpu.agent.command_runner import Execution
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import Message


class CommandMessages:
    """Sends them; a caller that does not take several replies gets everything with the last one."""

    def __init__(self, send: Callable[[Message], None], *, takes_several: bool) -> None:
        self._send = send
        self.takes_several = takes_several
        self._kept = {"output": "", "errors": ""}

    def write_output(self, text: str) -> None:
        """Send what the command wrote to its standard output; raises `OSError`."""
        self._write("output", text)

    def write_errors(self, text: str) -> None:
        """Send what the command wrote to its standard error; raises `OSError`."""
        self._write("errors", text)

    def last(self, outcome: int | Execution) -> Message:
        """Return the last reply, with the exit status, or with what the caller is to execute."""
        if isinstance(outcome, Execution):
            execution = {
                "arguments": list(outcome.arguments),
                "environment": dict(outcome.environment),
            }
            return interface.reply({**self._kept, "execute": execution})
        return interface.reply({**self._kept, "status": outcome})

    def _write(self, name: str, text: str) -> None:
        if not self.takes_several:
            self._kept[name] += text
            return
        self._send(interface.reply_of_several({"output": "", "errors": "", name: text}))
