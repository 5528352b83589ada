"""Become another program: the same process, with its descriptors and its children."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection

from canhazgpu.agent.reexecution.inherited_state import InheritedState, pass_on_state, undo_pass_on
from canhazgpu.agent.reexecution.program import Program


def execute(
    program: Program,
    what: InheritedState,
    blocked: Collection[signal.Signals],
    may_begin: Callable[[], bool],
) -> OSError | None:
    """Become the program; returns why it could not be executed, and then nothing has changed.

    The signals `blocked` are not handled before the program has handlers: the mask stays. Those
    that came before decide whether it may begin; it returns None if not.
    """
    environ = dict(os.environ)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        if not may_begin():
            return None
        file = pass_on_state(what, environ)
        try:
            os.execve(program.python, program.arguments, environ)  # noqa: S606 - no shell
        except OSError as exc:
            undo_pass_on(what, file)
            return exc
    except OSError as exc:
        return exc
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
