"""Show frames repeatedly: in place on a terminal, else one after the other."""

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
# the terminal. Without wrapping a long line does not push the others down.
ENTER_ALTERNATE_SCREEN = "\x1b[?1049h\x1b[?25l\x1b[?7l"
LEAVE_ALTERNATE_SCREEN = "\x1b[?7h\x1b[?25h\x1b[?1049l"
CURSOR_HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


class Frame(NamedTuple):
    """Lines to show, and their time in seconds since the epoch.

    Two frames with equal `comparison_key` show the same state.
    """

    lines: Sequence[str]
    at: float
    comparison_key: object


FrameOutput = Callable[[Frame], None]


def show_repeatedly(
    read_frame: Callable[[], Frame],
    show: FrameOutput,
    interval_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Read and show a frame every `interval_s` seconds, until a signal or an exception."""
    with _raise_on_signals() as received:
        while True:
            began = clock()
            frame = read_frame()
            if received:
                raise _signal_exception(received[0])
            show(frame)
            sleep(max(interval_s - (clock() - began), 0.0))


@contextmanager
def _raise_on_signals() -> Iterator[list[int]]:
    """Raise an exception for SIGINT and SIGTERM, so that the terminal is restored.

    Yields the list of received signals. The caller must look at it: an exception that a handler
    raises in a callback of `os.register_at_fork` is lost, and every scan forks.
    """
    received: list[int] = []

    def end(signum: int, _frame: FrameType | None) -> None:
        received.append(signum)
        raise _signal_exception(signum)

    before = {
        number: signal.signal(number, end)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal_exception(signum: int) -> BaseException:
    return KeyboardInterrupt() if signum == signal.SIGINT else SystemExit(128 + signum)


def print_frame(frame: Frame) -> None:
    """Print the frame's lines."""
    for line in frame.lines:
        click.echo(line)
    sys.stdout.flush()


class PrintOnChange:
    """Prints a frame under its time, if its comparison key differs from the last one's."""

    def __init__(self) -> None:
        self._before: Frame | None = None

    def __call__(self, frame: Frame) -> None:
        """Print the frame if it shows something new."""
        before, self._before = self._before, frame
        if before is not None and before.comparison_key == frame.comparison_key:
            return
        heading = [iso_time(frame.at) or "", *frame.lines]
        print_frame(frame._replace(lines=heading if before is None else ["", *heading]))


@contextmanager
def full_screen(title: str) -> Iterator[FrameOutput]:
    """Switch to the terminal's alternate screen, and yield the function that draws a frame.

    The terminal is restored when the block ends, and while the program is stopped.
    """

    def draw(frame: Frame) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(frame.at))
        _write_unbuffered(_screen_text([f"{clock}  {title}", "", *frame.lines]))

    with _stopped_by_sigtstp():
        _write_unbuffered(ENTER_ALTERNATE_SCREEN)
        try:
            yield draw
        finally:
            # A second Ctrl-C must not interrupt this.
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
    """Stop the process as Ctrl-Z does; restore the terminal until it continues."""
    _write_unbuffered(LEAVE_ALTERNATE_SCREEN)
    os.kill(os.getpid(), signal.SIGSTOP)
    _write_unbuffered(ENTER_ALTERNATE_SCREEN)


def _screen_text(lines: Sequence[str]) -> str:
    height = max(shutil.get_terminal_size().lines, 2)
    if len(lines) > height:
        lines = [*lines[: height - 1], f"({len(lines) - height + 1} more lines)"]
    return CURSOR_HOME + "\r\n".join(f"{line}{CLEAR_LINE}" for line in lines) + CLEAR_BELOW


def _write_unbuffered(text: str) -> None:
    # Not through sys.stdout: a signal handler must not re-enter its buffer.
    data = text.encode(sys.stdout.encoding, "replace")
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]
