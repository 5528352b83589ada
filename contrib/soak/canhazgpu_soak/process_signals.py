"""Kill and stop processes, and know that this very process was struck while it lived.

A process may end between the look at it and the signal. So it is stopped first: what is seen to be
stopped lives, cannot end by itself, and can be looked at again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

LIMIT_S = 5.0
POLL_S = 0.002
STOPPED = "T"
ENDED = "ZX"


def state_of(pid: int) -> str:
    """Return the letter that /proc has for the process's state; X where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "X"


def stop(pid: int, is_target: Callable[[], bool]) -> bool:
    """Stop a process; false, and it goes on, where it ended before or is not what it was."""
    if not _send(pid, signal.SIGSTOP) or not _comes_to(pid, STOPPED + ENDED):
        return False
    if state_of(pid) == STOPPED and is_target():
        return True
    _send(pid, signal.SIGCONT)
    return False


def kill(pid: int, is_target: Callable[[], bool]) -> bool:
    """End a process as kill -9 does; true if it lived until then and has ended by that."""
    return stop(pid, is_target) and _send(pid, signal.SIGKILL) and _comes_to(pid, ENDED)


def go_on(pid: int) -> None:
    """Let a stopped process go on."""
    _send(pid, signal.SIGCONT)


def _comes_to(pid: int, states: str) -> bool:
    ends_at = time.monotonic() + LIMIT_S
    while state_of(pid) not in states:
        if time.monotonic() > ends_at:
            return False
        time.sleep(POLL_S)
    return True


def _send(pid: int, number: signal.Signals) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False
