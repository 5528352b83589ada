"""Carry out `Command`: what somebody typed, with the rights of the process that asks."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from canhazgpu.agent.command_runner import CommandRunner, Execution
from canhazgpu.agent.handler.command_conversation import CommandConversation
from canhazgpu.agent.handler.command_output import CommandOutput
from canhazgpu.agent.handler.conversation import send_message
from canhazgpu.agent.handler.fresh_process import use_environment
from canhazgpu.agent.handler.people_service import open_people_service
from canhazgpu.agent.handler.watcher_handover import WatcherUnavailableError
from canhazgpu.agent.request import Request
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.command_line import CommandLine, command_line_of
from canhazgpu.agent.wire.framing import WireError
from canhazgpu.agent.wire.interface import Call
from canhazgpu.in_process.watching.watched_grants import HandedOverError
from canhazgpu.ledger.local.notices import Notices
from canhazgpu.people.revocations import notice_text

CHANGE_LIMIT_S = 120.0
"""Longest time for a command that may change something; its own waits end long before."""
LOOK_LIMIT_S = 7 * 86400.0
"""Longest time for one that only looks, and may go on looking. It ends with its caller."""
INTERNAL_ERROR = 70
"""EX_SOFTWARE of sysexits.h."""
COMPLETION = "_CANHAZGPU_COMPLETE"
"""A shell sets it where it asks for values, not a person."""
PRINTING = ("COLUMNS", "COMP_CWORD", "COMP_WORDS", "LINES", "TERM", "TZ", COMPLETION)
"""The caller's variables that libraries take from the environment of the process."""


def run_command_request(
    scanner_socket: Path,
    environ: Mapping[str, str],
    runner: CommandRunner,
    request: Request,
    call: Call,
) -> None:
    """Answer the request. `environ` is the node's, and names its configuration."""
    try:
        line = command_line_of(call)
    except WireError as exc:
        refusal = interface.error(interface.INVALID_PARAMETER, {"parameter": str(exc)})
        send_message(request.connection, refusal)
        return
    conversation = CommandConversation(request)
    if conversation.pidfd is None:
        send_message(request.connection, interface.error(interface.NOT_PERMITTED))
        return
    changes = runner.changes_something(line.arguments)
    if not conversation.confirms(CHANGE_LIMIT_S if changes else LOOK_LIMIT_S):
        return
    if not changes:
        conversation.end_with_peer()
    _use_terminal(conversation, line)
    if COMPLETION not in line.variables and runner.is_of_person(line.arguments):
        _tell_what_was_taken(conversation, scanner_socket.parents[1])
    _carry_out(
        conversation,
        lambda: runner.run(
            line, lambda: open_people_service(scanner_socket, environ, conversation, line, call)
        ),
    )


def _carry_out(conversation: CommandConversation, run: Callable[[], int | Execution]) -> None:
    """Run the command, and tell the caller how it ended, unless the watcher does."""
    try:
        outcome = run()
        sys.stdout.flush()
        sys.stderr.flush()
    except (HandedOverError, WatcherUnavailableError):
        # The watcher answers; or nobody does, and the caller asks again.
        conversation.report_served()
        return
    except Exception as exc:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
            conversation.write_errors(
                f"canhazgpu: internal error of the agent: {type(exc).__name__}: {exc}"
                " (please report this)\n"
            )
        conversation.end(INTERNAL_ERROR)
        raise
    if conversation.end(outcome):
        conversation.wait_for_close()


def _tell_what_was_taken(conversation: CommandConversation, directory: Path) -> None:
    """Tell the caller once which reservations others took since the last command here."""
    node, now = str(conversation.request.status["node"]), time.time()
    for one in Notices(directory).take(conversation.request.peer.uid):
        # Whoever took it has chosen the words.
        text = "".join(filter(str.isprintable, notice_text(one, node, now)))
        print(f"canhazgpu: {text}", file=sys.stderr)  # noqa: T201 - to the caller


def _use_terminal(conversation: CommandConversation, line: CommandLine) -> None:
    """Write to the caller from now on, as its terminal and its time zone want it."""
    variables = {name: line.variables[name] for name in PRINTING if name in line.variables}
    use_environment(variables)
    if "TZ" in os.environ:
        time.tzset()
    on_terminal = line.terminal.width is not None
    sys.stdout = CommandOutput(conversation.write_output, is_terminal=on_terminal)
    sys.stderr = CommandOutput(
        conversation.write_errors, is_terminal=line.terminal.errors_on_terminal
    )
