"""Fork a child that does not take part in what its parent was about to do."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import NoReturn

HANDLED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""The signals that the listener handles."""


@contextlib.contextmanager
def blocked_signals() -> Iterator[None]:
    """Fork inside: a signal before the child has its own handlers is not the listener's."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def end_after(work: Callable[[], NoReturn]) -> NoReturn:
    """Be a child that never gets back into the listener's loop."""
    try:
        work()
    finally:
        os._exit(1)
