"""What handlers tell the listener: one line of JSON each, in a pipe that blocks neither side."""

from __future__ import annotations

import contextlib
import json
import os
import select
from collections.abc import Iterator
from dataclasses import asdict, replace

from canhazgpu.frozen_dataclass import dataclass

MAX_TEXT = 1000
"""With it a report is shorter than PIPE_BUF, and so is written as a whole or not at all."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a handler says of its request.

    `limit_s` is how long it may run from now on, None for no change. `is_served` is True once the
    request was carried out.
    """

    pid: int
    method: str = ""
    limit_s: float | None = None
    fault: str = ""
    is_served: bool = False


class Reports:
    """The pipe; the listener has both ends, a handler only the one for writing.

    `ends` are those of a pipe that handlers have already.
    """

    def __init__(self, ends: tuple[int, ...] = ()) -> None:
        self.read_end, self.write_end = ends or os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._text = b""

    def received(self) -> Iterator[Report]:
        """Yield what was written since the last call."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.read_end, select.PIPE_BUF):
                self._text += chunk
        *lines, self._text = self._text.split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):
                yield Report(**json.loads(line))


def write_report(write_end: int, report: Report) -> None:
    """Write a report; a full pipe loses it."""
    told = asdict(
        replace(report, fault=report.fault.encode("ascii", "replace").decode()[:MAX_TEXT])
    )
    with contextlib.suppress(OSError):
        os.write(write_end, json.dumps(told).encode() + b"\n")
