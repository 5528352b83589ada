"""What comes of a command: its output and errors, and its end in this process."""

import _signal  # type: ignore[import-not-found]
import errno
import posix
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

NO_ANSWER = 8
"""The exit status of `canhazgpu.errors.AgentError`."""
SIGINT, SIGPIPE = 2, 13


def finish(outcome: "dict[str, Any]") -> None:
    """Write what the command wrote; after the last message end, or become its command."""
    pass_on(1, str(outcome.get("output", "")))
    pass_on(2, str(outcome.get("errors", "")))
    if "execute" in outcome:
        execute(outcome["execute"])
    if "status" in outcome:
        status = int(outcome["status"])
        if status == 128 + SIGINT:
            end_by_signal(SIGINT)
        posix._exit(status)


def execute(execution: "Mapping[str, Any]") -> "NoReturn":
    """Become the command; the agent sees this process end if it cannot be executed."""
    from os import environ  # noqa: PLC0415 - only where a command is executed

    from canhazgpu.errors import CommandError  # noqa: PLC0415
    from canhazgpu.people.command_exec import exec_command  # noqa: PLC0415

    try:
        exec_command(execution["arguments"], {**environ, **execution["environment"]})
    except CommandError as exc:
        pass_on(2, f"Error: {exc}\n")
        posix._exit(exc.exit_code)


def pass_on(descriptor: int, text: str) -> None:
    """Write a text in the encoding of the descriptor's stream; raises `BrokenPipeError`."""
    stream = sys.stdout if descriptor == 1 else sys.stderr
    encoding = getattr(stream, "encoding", None) or "utf-8"
    left = text.encode(encoding, "replace")
    while left:
        try:
            left = left[posix.write(descriptor, left) :]
        except BlockingIOError:
            select.select((), (descriptor,), ())
        except BrokenPipeError:
            raise
        except OSError as exc:
            if descriptor == 1 and exc.errno != errno.EBADF:
                # A full disk must not look like success.
                posix._exit(1)
            return


def fail(why: str) -> "NoReturn":
    """End with the reason."""
    pass_on(2, f"Error: {why} ('canhazgpu agent status' shows its state)\n")
    posix._exit(NO_ANSWER)


def end_by_signal(number: int) -> "NoReturn":
    """End by the signal itself: after an ordinary exit a shell would go on with its script."""
    _signal.signal(number, _signal.SIG_DFL)
    posix.kill(posix.getpid(), number)
    posix._exit(128 + number)


def require_executable(command: "list[str]") -> None:
    """End where this process could not execute the command, before GPUs are reserved for it."""
    from os import environ  # noqa: PLC0415 - only where a command is executed

    from canhazgpu.errors import CommandError  # noqa: PLC0415
    from canhazgpu.people.command_exec import check_command  # noqa: PLC0415

    try:
        check_command(command, environ)
    except CommandError as exc:
        pass_on(2, f"Error: {exc}\n")
        posix._exit(exc.exit_code)
