"""Python that has the process of a hook stop itself at a step of its work."""

from __future__ import annotations

_PROGRAM = """
import importlib, os, signal
owner, _, name = {step!r}.rpartition(".")
module, _, holder = owner.partition(":")
holder = getattr(importlib.import_module(module), holder) if holder else (
    importlib.import_module(module)
)
first = getattr(holder, name)
calls = []
def stop():
    if "SLURM_JOB_ID" in os.environ:
        calls.append(1)
        if len(calls) == {call}:
            os.kill(os.getpid(), signal.SIGSTOP)
def before(*given, **named):
    stop()
    return first(*given, **named)
def after(*given, **named):
    try:
        return first(*given, **named)
    finally:
        stop()
setattr(holder, name, {when})
"""


def stop_at(step: str, call: int, when: str) -> str:
    """Return the program; `when` is ``before`` or ``after`` the n-th call of a function.

    It counts the calls of a process that has a job's variables: a hook, or an agent's handler.
    """
    return _PROGRAM.format(step=step, call=call, when=when)
