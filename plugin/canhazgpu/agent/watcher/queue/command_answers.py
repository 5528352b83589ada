"""Answer a client whose command waits: the command is carried out anew, with its outcome known.

So it says what it would have said in the process that took it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

from canhazgpu.agent.command_runner import CommandRunner
from canhazgpu.agent.handler.command_messages import CommandMessages
from canhazgpu.agent.handler.command_output import CommandOutput
from canhazgpu.agent.wire.command_line import command_line_of
from canhazgpu.agent.wire.framing import Message, encode
from canhazgpu.agent.wire.interface import COMMAND, Call
from canhazgpu.allocation.allocator import Grant
from canhazgpu.allocation.refusal import Refusal
from canhazgpu.config.schema import Config
from canhazgpu.errors import CanhazgpuError
from canhazgpu.in_process.grants.answers import reserved, run_started
from canhazgpu.in_process.service import InProcessService
from canhazgpu.in_process.watching.waiting_request import WaitingRequest

if TYPE_CHECKING:
    from canhazgpu.allocation.progress import Progress
    from canhazgpu.service.grants import Reserved, ReserveRequest, RunRequest, RunStarted

COLUMNS = "COLUMNS"


class CommandAnswers:
    """`WaiterAnswers` for a client of `Command`."""

    def __init__(self, runner: CommandRunner, node: str, waiting: WaitingRequest) -> None:
        self._runner = runner
        self._node = node
        self._waiting = waiting
        self._line = command_line_of(Call(COMMAND, dict(waiting.command["call"])))
        self._unsent: list[Message] = []
        takes_several = bool(waiting.command["takes_several"])
        self._messages = CommandMessages(self._unsent.append, takes_several=takes_several)
        on_terminal = self._line.terminal.errors_on_terminal
        self._errors = CommandOutput(self._messages.write_errors, is_terminal=on_terminal)
        self._progress = runner.open_progress(cast("TextIO", self._errors))

    def progress(self, text: str, steady: str) -> bytes:
        """See `WaiterAnswers`."""
        if not self._messages.takes_several:
            return b""
        with self._as_caller():
            self._progress.show(text, steady)
        return self._taken()

    def refused(self, refusal: Refusal) -> bytes:
        """See `WaiterAnswers`."""
        return self._ended(lambda: refusal)

    def failed(self, error: CanhazgpuError) -> bytes:
        """See `WaiterAnswers`."""

        def fail() -> Refusal:
            raise error

        return self._ended(fail)

    def granted(self, config: Config, grant: Grant) -> bytes:
        """See `WaiterAnswers`."""
        answer = self._answer(config, grant)
        return self._ended(lambda: answer)

    def _answer(self, config: Config, grant: Grant) -> RunStarted | Reserved:
        claim, run = self._waiting.claim, self._waiting.run
        if run is None:
            return reserved(self._node, config, claim, grant)
        return run_started(self._node, config, claim, grant, run, self._line.variables)

    def _ended(self, outcome: Callable[[], Any]) -> bytes:
        with self._as_caller():
            self._progress.done()
            result = self._runner.run(self._line, lambda: _Decided(outcome))
            sys.stdout.flush()
            sys.stderr.flush()
        self._unsent.append(self._messages.last(result))
        return self._taken()

    def _taken(self) -> bytes:
        taken = b"".join(map(encode, self._unsent))
        self._unsent.clear()
        return taken

    @contextlib.contextmanager
    def _as_caller(self) -> Iterator[None]:
        """Write to the caller, as its terminal wants it."""
        terminal, before = self._line.terminal, (sys.stdout, sys.stderr, os.environ.get(COLUMNS))
        on_terminal = terminal.width is not None
        sys.stdout = CommandOutput(self._messages.write_output, is_terminal=on_terminal)
        sys.stderr = self._errors
        if terminal.width is not None:
            os.environ[COLUMNS] = str(terminal.width)
        try:
            yield
        finally:
            sys.stdout, sys.stderr, columns = before
            os.environ.pop(COLUMNS, None)
            if columns is not None:
                os.environ[COLUMNS] = columns


class _Decided(InProcessService):
    """A service whose grant, refusal or error is known already."""

    def __init__(self, outcome: Callable[[], Any]) -> None:
        super().__init__(None)
        self._outcome = outcome

    def start_run(self, request: RunRequest, progress: Progress) -> Any:
        """See `NodeService.start_run`."""
        return self._outcome()

    def reserve(self, request: ReserveRequest, progress: Progress) -> Any:
        """See `NodeService.reserve`."""
        return self._outcome()
