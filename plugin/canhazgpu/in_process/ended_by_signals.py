"""Signals that end a command which has something to give back first."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class _EndedError(BaseException):
    """A signal asks this process to end; not an error that anything else should catch."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def ending(number: int) -> BaseException:
    """Return what to raise for a signal that came."""
    return KeyboardInterrupt() if number == signal.SIGINT else _EndedError(number)


@contextmanager
def ended_by_signals() -> Iterator[list[int]]:
    """Let SIGTERM and SIGHUP leave the queue first, and then end the process as they do.

    Yields the signals that came, SIGINT among them: what a handler raises while Python runs what
    is registered for a fork, as it does for every scan, is lost.
    """
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise ending(number)

    before = {
        number: signal.signal(number, end)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield came
    except _EndedError as exc:
        signal.signal(exc.number, signal.SIG_DFL)
        signal.raise_signal(exc.number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
