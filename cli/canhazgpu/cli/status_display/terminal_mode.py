"""Take a terminal's whole screen and its keys, and give both back, however the program ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from canhazgpu.node.termination_signals import TERMINATION_SIGNALS

# https://invisible-island.net/xterm/ctlseqs/ctlseqs.html: the alternate screen keeps what was on
# the terminal. Without wrapping a long line does not push the others down.
ENTER_ALTERNATE_SCREEN = "\x1b[?1049h\x1b[?25l\x1b[?7l"
LEAVE_ALTERNATE_SCREEN = "\x1b[?7h\x1b[?25h\x1b[?1049l"

_Handler = Callable[[int, FrameType | None], None]

_LOCAL_FLAGS = 3
"""The place of the local flags in what `termios.tcgetattr` returns."""


class TerminalMode:
    """The terminal while a program has its whole screen.

    `keyboard` is the descriptor that keys are read from, None where standard input is no terminal
    or another program's. `wakeup` becomes readable at each signal that is handled: one that arrives
    just before a wait for the keyboard would otherwise be noticed at its end.
    """

    def __init__(self) -> None:
        self._settings = _keyboard_settings()
        self.keyboard = None if self._settings is None else sys.stdin.fileno()
        self.wakeup, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def enter(self) -> None:
        """Switch to the alternate screen; keys come one by one and are not echoed."""
        if self._settings is not None:
            unbuffered: list[Any] = list(self._settings)
            # Ctrl-C and Ctrl-Z stay signals.
            unbuffered[_LOCAL_FLAGS] &= ~(termios.ICANON | termios.ECHO)
            self._set(unbuffered)
        # Whoever draws on a terminal that is gone will see it.
        with contextlib.suppress(OSError):
            write_unbuffered(ENTER_ALTERNATE_SCREEN)

    def leave(self) -> None:
        """Give the terminal back as it was; a terminal that is gone is no error."""
        with contextlib.suppress(OSError):
            write_unbuffered(LEAVE_ALTERNATE_SCREEN)
        if self._settings is not None:
            self._set(self._settings)

    def close(self) -> None:
        """Close what the object opened."""
        os.close(self.wakeup)
        os.close(self._wake)

    @contextmanager
    def woken_by_signals(self) -> Iterator[None]:
        """Make `wakeup` readable at each handled signal in the block."""
        before = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)

    def clear_wakeup(self) -> None:
        """Make `wakeup` unreadable."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wakeup, 512):
                pass

    def read_keyboard(self, size: int) -> bytes:
        """Return what was typed; at the end of the input, no key is read any more."""
        data = b""
        if self.keyboard is not None:
            with contextlib.suppress(OSError):
                data = os.read(self.keyboard, size)
        if not data:
            self.keyboard = None
        return data

    def _set(self, settings: list[Any]) -> None:
        with contextlib.suppress(termios.error, ValueError, OSError):
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, settings)


@contextmanager
def full_screen() -> Iterator[TerminalMode]:
    """Take the terminal's whole screen for the block, and give it back at its end.

    It is given back while the program is stopped, too.
    """
    mode = TerminalMode()

    def stop(_signum: int, _frame: FrameType | None) -> None:
        mode.leave()
        os.kill(os.getpid(), signal.SIGSTOP)

    def resume(_signum: int, _frame: FrameType | None) -> None:
        mode.enter()

    def resized(_signum: int, _frame: FrameType | None) -> None:
        pass  # the wakeup is enough

    handlers = {signal.SIGTSTP: stop, signal.SIGCONT: resume, signal.SIGWINCH: resized}
    try:
        with _default_handlers_replaced(handlers), mode.woken_by_signals():
            mode.enter()
            try:
                yield mode
            finally:
                with _ignored(TERMINATION_SIGNALS):
                    mode.leave()
    finally:
        mode.close()


def write_unbuffered(text: str) -> None:
    """Write to standard output, past its buffer: a signal handler must not re-enter that."""
    data = text.encode(sys.stdout.encoding, "replace")
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


def _keyboard_settings() -> list[Any] | None:
    """Return the settings of the terminal that is standard input.

    None where it is no terminal, or the terminal of another process group: this program runs in
    the background.
    """
    try:
        keyboard = sys.stdin.fileno()
        if os.tcgetpgrp(keyboard) != os.getpgrp():
            return None
        return termios.tcgetattr(keyboard)
    except (AttributeError, ValueError, OSError, termios.error):
        return None


@contextmanager
def _default_handlers_replaced(handlers: Mapping[signal.Signals, _Handler]) -> Iterator[None]:
    """Handle these signals in the block, except those that are ignored or handled already."""
    mine = {one: new for one, new in handlers.items() if signal.getsignal(one) is signal.SIG_DFL}
    for number, handler in mine.items():
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _ignored(numbers: Iterable[signal.Signals]) -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
