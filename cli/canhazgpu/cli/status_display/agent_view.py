"""The live view of `canhazgpu status --watch` where the node's agent reads and renders each frame.

The keys and the screen are this process's: the agent has no part of a user's terminal.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import click

from canhazgpu.cli.status_display.live_view import frame_title
from canhazgpu.cli.status_display.watch import Frame, Size

FRAME_OPTION = "--as-frame"
FALLBACK = Size(80, 24)

Ask = Callable[[Sequence[str]], Iterable[Mapping[str, Any]]]
"""Has a command carried out; yields what it writes, and last its exit status."""


class AgentView:
    """Has each frame made by the agent; `arguments` are the words of the command line.

    `fault` is the exit status that goes with the last frame, and the error that it shows. `told` is
    what the agent tells the user only once, beside a frame: it is to be shown after the view.
    """

    def __init__(self, ask: Ask, arguments: Sequence[str], interval_s: float) -> None:
        self._ask = ask
        self._arguments = arguments
        self._interval_s = interval_s
        self._layout: tuple[str, ...] = ()
        self._shown: dict[str, Any] = {}
        self._filter_text = ""
        self.fault: tuple[int, str] | None = None
        self.told = ""

    def read_frame(self) -> Frame:
        """Return the next frame; it is asked for when its room is known.

        Ends the program with the command's own status where that was wrong.
        """
        return Frame(self._lines, time.time(), None)

    def title(self, at: float, *, reads_keys: bool) -> str:
        """See `LiveView.title`."""
        return frame_title(at, self._interval_s, self._filter_text, reads_keys=reads_keys)

    def toggle_layout(self) -> None:
        """See `LiveView.toggle_layout`."""
        self._layout = ("--no-summary",) if self._shown.get("summary") else ("--summary",)

    def _lines(self, size: Size | None) -> Sequence[str]:
        room = size or FALLBACK
        words = [*self._arguments, *self._layout, FRAME_OPTION, f"{room.columns}x{room.lines}"]
        try:
            output, errors, status = _collected(self._ask(words))
        except OSError as exc:
            self.fault = (8, f"the node's agent gives no answer: {exc.strerror or exc}")
            return [f"Error: {self.fault[1]}"]
        if status:
            click.echo(errors, nl=False, err=True)
            raise click.exceptions.Exit(status)
        self.told += errors
        self._shown = json.loads(output)
        self._filter_text = str(self._shown["filter"])
        error, code = str(self._shown["error"]), int(self._shown["exit_status"])
        self.fault = (code, error) if code else None
        return list(map(str, self._shown["lines"]))


def _collected(outcome: Iterable[Mapping[str, Any]]) -> tuple[str, str, int]:
    output, errors, status = "", "", 0
    for one in outcome:
        output += str(one.get("output", ""))
        errors += str(one.get("errors", ""))
        status = int(one.get("status", 0))
    return output, errors, status


def asked_at(path: str) -> Ask:
    """Return how the agent at this socket is asked; every failure is an `OSError`."""
    from canhazgpu.agent.client_connection import AgentBusy  # noqa: PLC0415
    from canhazgpu.agent.command_client import exchange  # noqa: PLC0415 - only where there is an agent
    from canhazgpu.agent.hook_client import NotServed  # noqa: PLC0415

    def ask(arguments: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        try:
            yield from exchange.ask(path, list(arguments))
        except AgentBusy as exc:
            raise OSError("it is busy") from exc
        except (exchange.AgentEnded, NotServed) as exc:
            raise OSError("it has ended") from exc

    return ask
