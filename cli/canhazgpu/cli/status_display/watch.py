"""Showing something again and again: in place on a terminal, else as it comes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

import click

from canhazgpu.status.json_format import iso_time

# https://invisible-island.net/xterm/ctlseqs/ctlseqs.html: the alternate screen keeps what was on
# the terminal; without wrapping, a line longer than the terminal does not push others down.
ENTER_ALTERNATE_SCREEN = "\x1b[?1049h\x1b[?25l\x1b[?7l"
LEAVE_ALTERNATE_SCREEN = "\x1b[?7h\x1b[?25h\x1b[?1049l"
CURSOR_HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


class Frame(NamedTuple):
    """What is to be seen at a time (seconds since the epoch); `essence` tells two apart."""

    lines: Sequence[str]
    at: float
    essence: object


FrameOutput = Callable[[Frame], None]


def show_repeatedly(
    look: Callable[[], Frame],
    show: FrameOutput,
    interval_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Look and show every `interval_s` seconds, until a signal or an exception ends it."""
    with _ended_by_signals() as came:
        while True:
            began = clock()
            frame = look()
            if came:
                raise _ending(came[0])
            show(frame)
            sleep(max(interval_s - (clock() - began), 0.0))


@contextmanager
def _ended_by_signals() -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM end the program by an exception, so that all is put in order.

    Yields the signals that came: what a handler raises while Python runs what is registered for a
    fork, as it does for every scan, is lost.
    """
    came: list[int] = []

    def end(signum: int, _frame: FrameType | None) -> None:
        came.append(signum)
        raise _ending(signum)

    before = {
        number: signal.signal(number, end)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ending(signum: int) -> BaseException:
    return KeyboardInterrupt() if signum == signal.SIGINT else SystemExit(128 + signum)


def print_frame(frame: Frame) -> None:
    """Print the frame's lines."""
    for line in frame.lines:
        click.echo(line)
    sys.stdout.flush()


class PrintOnChange:
    """Prints a frame, under its time, if it is not in essence the one before."""

    def __init__(self) -> None:
        self._before: Frame | None = None

    def __call__(self, frame: Frame) -> None:
        """Print the frame where it tells something new."""
        before, self._before = self._before, frame
        if before is not None and before.essence == frame.essence:
            return
        heading = [iso_time(frame.at) or "", *frame.lines]
        print_frame(frame._replace(lines=heading if before is None else ["", *heading]))


@contextmanager
def full_screen(title: str) -> Iterator[FrameOutput]:
    """Take the terminal's alternate screen; gives what draws a frame on it.

    The terminal is as it was after the block, however it ends, and while the program is stopped.
    """

    def draw(frame: Frame) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(frame.at))
        _write_unbuffered(_screen_text([f"{clock}  {title}", "", *frame.lines]))

    with _stopped_by_sigtstp():
        _write_unbuffered(ENTER_ALTERNATE_SCREEN)
        try:
            yield draw
        finally:
            # Another Ctrl-C must not come between.
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            with contextlib.suppress(OSError):
                _write_unbuffered(LEAVE_ALTERNATE_SCREEN)
            signal.signal(signal.SIGINT, before)


@contextmanager
def _stopped_by_sigtstp() -> Iterator[None]:
    default = signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
    if default:
        signal.signal(signal.SIGTSTP, _stop_process)
    try:
        yield
    finally:
        if default:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)


def _stop_process(_signum: int, _frame: FrameType | None) -> None:
    """Stop as Ctrl-Z does, with the terminal given back until the program goes on."""
    _write_unbuffered(LEAVE_ALTERNATE_SCREEN)
    os.kill(os.getpid(), signal.SIGSTOP)
    _write_unbuffered(ENTER_ALTERNATE_SCREEN)


def _screen_text(lines: Sequence[str]) -> str:
    height = max(shutil.get_terminal_size().lines, 2)
    if len(lines) > height:
        lines = [*lines[: height - 1], f"({len(lines) - height + 1} more lines)"]
    return CURSOR_HOME + "\r\n".join(f"{line}{CLEAR_LINE}" for line in lines) + CLEAR_BELOW


def _write_unbuffered(text: str) -> None:
    # Past the buffer of sys.stdout, which a signal's handler must not enter a second time.
    data = text.encode(sys.stdout.encoding, "replace")
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]
