"""Show frames repeatedly: in place on a terminal, else one after the other."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import click

from canhazgpu.node.termination_signals import termination_exception
from canhazgpu.status.json_format import iso_time


class QuitWatchError(Exception):
    """The user has pressed the key that ends the watch, or the terminal is gone."""


class Size(NamedTuple):
    """The room on a screen, in columns and lines."""

    columns: int
    lines: int


class Frame(NamedTuple):
    """Lines to show, and their time in seconds since the epoch.

    `lines` returns them for a screen of this size, or for output that has none. Two frames with
    equal `comparison_key` show the same state.
    """

    lines: Callable[[Size | None], Sequence[str]]
    at: float
    comparison_key: object


FrameOutput = Callable[[Frame], None]


def show_repeatedly(
    read_frame: Callable[[], Frame],
    show: FrameOutput,
    interval_s: float,
    received: Sequence[int],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Read and show a frame every `interval_s` seconds, until a signal or an exception.

    `received` are the signals that came so far, see `raise_on_termination_signals`.
    """
    while True:
        began = clock()
        frame = read_frame()
        if received:
            raise termination_exception(received[0])
        show(frame)
        sleep(max(interval_s - (clock() - began), 0.0))


def print_frame(frame: Frame) -> None:
    """Print the frame's lines."""
    _print_lines(frame.lines(None))


class PrintOnChange:
    """Prints a frame under its time, if its comparison key differs from the last one's."""

    def __init__(self) -> None:
        self._before: Frame | None = None

    def __call__(self, frame: Frame) -> None:
        """Print the frame if it shows something new."""
        before, self._before = self._before, frame
        if before is not None and before.comparison_key == frame.comparison_key:
            return
        heading = [iso_time(frame.at) or "", *frame.lines(None)]
        _print_lines(heading if before is None else ["", *heading])


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(line)
    sys.stdout.flush()
