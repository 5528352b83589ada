"""Turn signals that end the process into exceptions, so that it can clean up first."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATION_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class _TerminatedError(BaseException):
    """A signal other than SIGINT was received; no `except Exception` may catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def termination_exception(number: int) -> BaseException:
    """Return the exception to raise for a received signal."""
    return KeyboardInterrupt() if number == signal.SIGINT else _TerminatedError(number)


@contextmanager
def raise_on_termination_signals() -> Iterator[list[int]]:
    """Raise an exception for the `TERMINATION_SIGNALS` inside the block.

    After the block all but SIGINT end the process, as they do without a handler. Yields the list of
    received signals. The caller must look at it: an exception that a handler raises in a
    callback of `os.register_at_fork` is lost, and every scan forks.
    """
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise termination_exception(number)

    handlers_before = {
        number: signal.signal(number, end)
        for number in TERMINATION_SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield received
    except _TerminatedError as exc:
        signal.signal(exc.number, signal.SIG_DFL)
        signal.raise_signal(exc.number)
    finally:
        for number, handler in handlers_before.items():
            signal.signal(number, handler)
