"""The live view of `canhazgpu status --watch`."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING

from canhazgpu.cli.app import App
from canhazgpu.cli.status_display.missing import missing_error
from canhazgpu.cli.status_display.renderer import StatusRenderer
from canhazgpu.cli.status_display.watch import (
    Frame,
    FrameOutput,
    PrintOnChange,
    full_screen,
    print_frame,
    show_repeatedly,
)
from canhazgpu.cli.terminal.colour import is_dumb_terminal
from canhazgpu.cli.terminal.text import printable
from canhazgpu.errors import CanhazgpuError, InputError, error_text
from canhazgpu.status.comparison import comparison_key
from canhazgpu.status.json_format import iso_time

if TYPE_CHECKING:
    from canhazgpu.service.port import NodeService
    from canhazgpu.service.status import StatusRequest


def watch_status(
    app: App, request: StatusRequest, renderer: StatusRenderer, interval_s: float
) -> None:
    """Show the status every `interval_s` seconds, until Ctrl-C.

    Raises `InputError`; shows every other `CanhazgpuError` in place of the status, and raises it at
    the end if the last status had it.
    """
    service = app.service()
    fault: CanhazgpuError | None = None

    def frame() -> Frame:
        nonlocal fault
        read, fault = _frame(app, service, request, renderer)
        return read

    in_place = (
        app.width() is not None and not renderer.as_json and not is_dumb_terminal(app.environ)
    )
    with contextlib.ExitStack() as stack:
        # Ctrl-C is the normal end of a watch.
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        show: FrameOutput = print_frame if renderer.as_json else PrintOnChange()
        if in_place:
            show = stack.enter_context(full_screen(f"every {interval_s:g} s, until Ctrl-C"))
        show_repeatedly(frame, show, interval_s, clock=app.clock, sleep=app.sleep)
    if fault is not None:
        raise fault


def _frame(
    app: App, service: NodeService, request: StatusRequest, renderer: StatusRenderer
) -> tuple[Frame, CanhazgpuError | None]:
    """Read the status once, with its error; one that may pass becomes a frame of its own."""
    try:
        answer = service.status(request)
    except InputError:
        raise
    except CanhazgpuError as exc:
        return _error_frame(exc, renderer), exc
    lines = renderer.lines(answer, app.width())
    missing = missing_error(answer)
    if missing is not None and not renderer.as_json:
        lines = [printable(f"Error: {error_text(missing)}"), "", *lines]
    key = comparison_key(renderer.visible_nodes(answer))
    return Frame(lines, answer.nodes[0].read_at, (key, missing and str(missing))), missing


def _error_frame(error: CanhazgpuError, renderer: StatusRenderer) -> Frame:
    text, now = error_text(error), time.time()
    if renderer.as_json:
        line = json.dumps({"generated_at": iso_time(now), "error": text}, separators=(",", ":"))
    else:
        line = printable(f"Error: {text}")
    return Frame([line], now, text)
