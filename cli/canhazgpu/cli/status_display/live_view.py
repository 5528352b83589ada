"""The live view of `canhazgpu status --watch`."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from canhazgpu.cli.app import App
from canhazgpu.cli.status_display.missing import missing_error
from canhazgpu.cli.status_display.renderer import StatusRenderer
from canhazgpu.cli.status_display.watch import (
    Frame,
    FrameOutput,
    PrintOnChange,
    QuitWatchError,
    print_frame,
    show_repeatedly,
)
from canhazgpu.cli.terminal.colour import is_dumb_terminal
from canhazgpu.cli.terminal.text import printable
from canhazgpu.errors import CanhazgpuError, InputError, advice_for, error_text
from canhazgpu.node.termination_signals import raise_on_termination_signals
from canhazgpu.status.json_format import iso_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from canhazgpu.cli.status_display.watch import Size
    from canhazgpu.service.status import StatusAnswer, StatusRequest


def watch_status(
    app: App, request: StatusRequest, renderer: StatusRenderer, interval_s: float
) -> None:
    """Show the status every `interval_s` seconds, until Ctrl-C or the key q.

    Raises `InputError`; shows every other `CanhazgpuError` in place of the status, and raises it at
    the end if the last status had it.
    """
    view = LiveView(app, request, renderer, interval_s)
    on_screen = (
        app.width() is not None and not renderer.as_json and not is_dumb_terminal(app.environ)
    )
    show_view(app, view, interval_s, on_screen=on_screen, as_json=renderer.as_json)
    if view.fault is not None:
        raise view.fault


class View(Protocol):
    """What is shown again and again."""

    def read_frame(self) -> Frame:
        """Return what to show now."""
        ...

    def title(self, at: float, *, reads_keys: bool) -> str:
        """Return the line above what is of this time (seconds since the epoch)."""
        ...

    def toggle_layout(self) -> None:
        """From now on show the tables in place of the summary, or the other way round."""
        ...


def show_view(
    app: App, view: View, interval_s: float, *, on_screen: bool, as_json: bool = False
) -> None:
    """Show the view every `interval_s` seconds, until Ctrl-C or the key q."""
    with contextlib.ExitStack() as stack:
        # Ctrl-C is the normal end of a watch.
        stack.enter_context(contextlib.suppress(KeyboardInterrupt, QuitWatchError))
        received = stack.enter_context(raise_on_termination_signals())
        show: FrameOutput = print_frame if as_json else PrintOnChange()
        sleep = app.sleep
        if on_screen:
            show, sleep = stack.enter_context(_screen(view))
        show_repeatedly(view.read_frame, show, interval_s, received, clock=app.clock, sleep=sleep)


class LiveView:
    """Reads the status again and again; `fault` is the error of the last one, if any."""

    def __init__(
        self, app: App, request: StatusRequest, renderer: StatusRenderer, interval_s: float
    ) -> None:
        self._app = app
        self._request = request
        self._renderer = renderer
        self._service = app.service()
        self._interval_s = interval_s
        self._height: int | None = None
        self._answer: StatusAnswer | None = None
        self._lacks_tables = False
        self._is_checked = False
        self._shows_summary = False
        self.fault: CanhazgpuError | None = None

    def read_frame(self) -> Frame:
        """Read the status once; an error that may pass becomes a frame of its own."""
        height = self._app.height() if self._height is None else self._height
        try:
            request = self._request_for(height)
            answer = self._service.status(request)
        except InputError:
            raise
        except CanhazgpuError as exc:
            self.fault = exc
            return _error_frame(exc, as_json=self._renderer.as_json)
        if not self._is_checked and answer.store_fault is None:
            # Only once: what somebody knew when the watch began is no wrong value later.
            self._renderer.refuse_unknown_values(answer)
            self._is_checked = True
        self.fault = missing = missing_error(answer)
        key = (self._renderer.comparison_key(answer), missing and str(missing))
        self._answer = answer
        self._lacks_tables = bool(answer.counted) or self._is_brief(request, answer)
        return Frame(self._lines, answer.read_at, key)

    def _request_for(self, height: int | None) -> StatusRequest:
        """Return what to ask for a terminal that has this many lines now, or for no terminal."""
        room = None if self._request.nodes else height
        return replace(
            self._request,
            brief_above=self._renderer.brief_above(room),
            counts_above=self._renderer.counts_above(room),
        )

    def _is_brief(self, request: StatusRequest, answer: StatusAnswer) -> bool:
        """Tell whether nodes may lack what their tables show."""
        above, tables = request.brief_above, replace(self._renderer, summary=False)
        needs_all = tables.brief_above(None) is None
        return needs_all and above is not None and answer.node_count > above

    def _with_tables(self, answer: StatusAnswer) -> StatusAnswer:
        """Return an answer with all that tables show; the same where it cannot be read."""
        self._lacks_tables = False
        request = replace(self._request, brief_above=None, counts_above=None)
        with contextlib.suppress(CanhazgpuError):
            return self._service.status(request)
        return answer

    def title(self, at: float, *, reads_keys: bool) -> str:
        """See `View.title`."""
        text = self._renderer.filter_text
        return frame_title(at, self._interval_s, text, reads_keys=reads_keys)

    def toggle_layout(self) -> None:
        """See `View.toggle_layout`."""
        self._renderer = replace(self._renderer, summary=not self._shows_summary)

    def shown(self, size: Size) -> dict[str, Any]:
        """Return one frame for a screen of this size, as JSON values."""
        self._height = size.lines
        lines = list(self.read_frame().lines(size))
        return {
            "lines": lines,
            "summary": self._shows_summary,
            "filter": self._renderer.filter_text,
            "error": "" if self.fault is None else error_text(self.fault),
            "exit_status": 0 if self.fault is None else advice_for(self.fault).exit_code,
        }

    def _lines(self, size: Size | None) -> Sequence[str]:
        answer = self._answer
        assert answer is not None  # noqa: S101 - there are lines of a frame that was read
        width = self._app.width() if size is None else size.columns
        above: list[str] = []
        missing = missing_error(answer)
        if missing is not None and not self._renderer.as_json:
            above = [printable(f"Error: {error_text(missing)}"), ""]
        height = None if size is None else size.lines - len(above)
        renderer = self._renderer
        if self._lacks_tables and not renderer.is_summary(answer, height):
            # The layout or the terminal's size has changed since.
            self._answer = answer = self._with_tables(answer)
            if answer.counted:
                renderer = replace(renderer, summary=True)
        self._shows_summary = renderer.is_summary(answer, height)
        return [*above, *renderer.lines(answer, width, height)]


def frame_title(at: float, interval_s: float, filter_text: str, *, reads_keys: bool) -> str:
    """Return the line above a frame of this time (seconds since the epoch)."""
    clock = time.strftime("%H:%M:%S", time.localtime(at))
    end = "q" if reads_keys else "Ctrl-C"
    chosen = f"  {printable(filter_text)}" if filter_text else ""
    return f"{clock}  every {interval_s:g} s, until {end}{chosen}"


@contextlib.contextmanager
def _screen(view: View) -> Iterator[tuple[FrameOutput, Callable[[float], None]]]:
    """Take the whole screen; yield what shows a frame, and what waits for keys meanwhile."""
    from canhazgpu.cli.status_display.screen import Screen  # noqa: PLC0415 - only on a terminal
    from canhazgpu.cli.status_display.terminal_mode import full_screen  # noqa: PLC0415

    with full_screen() as mode:
        screen = Screen(mode, view.toggle_layout)

        def show(frame: Frame) -> None:
            title = view.title(frame.at, reads_keys=mode.keyboard is not None)
            screen.show(title, frame.lines)

        yield show, screen.wait


def _error_frame(error: CanhazgpuError, *, as_json: bool) -> Frame:
    text, now = error_text(error), time.time()
    if as_json:
        line = json.dumps({"generated_at": iso_time(now), "error": text}, separators=(",", ":"))
    else:
        line = printable(f"Error: {text}")
    return Frame(lambda _: [line], now, text)
