"""Try whether a program starts: a child executes it up to where it would serve."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import NoReturn

from canhazgpu.agent.reexecution.program import Program
from canhazgpu.agent.single_child import SingleChild
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.node.daemonize import close_descriptors_except, duplicate_above_stdio
from canhazgpu.probe.bounded_child import die_with_parent

CHECK_OPTION = "--check"
LIMIT_S = 120.0
"""A start takes about a second; a machine may give no CPU for long."""
MAX_OUTPUT = 65536
MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """`fault` is empty for a program that starts."""

    fault: str = ""


class TrialStart:
    """The child that executes the program with `--check`; one at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._child = SingleChild("check of the installed release", clock)
        self._ends_at = 0.0
        self._output = -1

    @property
    def runs(self) -> bool:
        """Whether one was started whose outcome was not taken."""
        return self._child.lives

    @property
    def left_s(self) -> float:
        """How long the child may still take."""
        return max(self._ends_at - self._clock(), 0.0)

    def start(self, program: Program) -> None:
        """Start the child. Call it with signals blocked; raises `OSError` where none can be."""
        self._output = os.memfd_create("canhazgpu-check", os.MFD_CLOEXEC)
        self._ends_at = self._clock() + LIMIT_S
        agent = os.getpid()
        try:
            self._child.start(lambda: _execute(program, self._output, agent))
        except OSError:
            os.close(self._output)
            raise

    def take(self) -> Outcome | None:
        """Return the outcome, None where there is none yet."""
        is_late = not self.left_s
        if is_late:
            self._child.kill()
        failed = self._child.reap()
        if self._child.lives:
            return None
        text = os.pread(self._output, MAX_OUTPUT, 0).decode("utf-8", "replace")
        os.close(self._output)
        if not failed:
            return Outcome()
        if is_late:
            return Outcome(f"it did not start within {LIMIT_S:g} s")
        return Outcome(_last_line(text) or failed)

    def end(self) -> None:
        """Kill the child, if one lives."""
        if self._child.lives:
            self._child.kill()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("Error: ")[:MAX_TEXT] if lines else ""


def _execute(program: Program, output: int, agent: int) -> NoReturn:
    """Become the program, in a session of its own; its output goes into the file."""
    die_with_parent(agent)()
    os.setsid()
    kept = duplicate_above_stdio(output)
    signal.set_wakeup_fd(-1)
    close_descriptors_except({kept})
    os.dup2(kept, 1)
    os.dup2(kept, 2)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Only the agent itself tells the service manager how far it is.
    environ = {name: text for name, text in os.environ.items() if name != "NOTIFY_SOCKET"}
    try:
        os.execve(program.python, program.with_option(CHECK_OPTION), environ)  # noqa: S606 - no shell
    except OSError as exc:
        os.write(2, f"cannot execute {program.python}: {exc.strerror}\n".encode())
        os._exit(1)
