"""`canhazgpu status`: every GPU, who holds it, and what it really does."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.options.common import (
    json_option,
    memory_threshold_option,
    nodes_option,
)
from canhazgpu.cli.options.value_completion import complete_nodes
from canhazgpu.cli.status_display.renderer import StatusRenderer
from canhazgpu.cli.terminal.colour import color_option, is_dumb_terminal, use_colour
from canhazgpu.errors import CanhazgpuError, InputError, ScanError, error_text

if TYPE_CHECKING:
    from canhazgpu.cli.status_display.watch import Frame
    from canhazgpu.service.port import NodeService
    from canhazgpu.service.status import StatusRequest

DEFAULT_WATCH_S = 2.0
MIN_WATCH_S = 0.1
MAX_WATCH_S = 86400.0


def _reject_nan(
    _context: click.Context, _parameter: click.Parameter, value: float | None
) -> float | None:
    # "nan" is a float, and outside of no range.
    if value is not None and math.isnan(value):
        raise click.BadParameter("'nan' is no number of seconds")
    return value


@click.command()
@nodes_option("Show", complete_nodes)
@click.option(
    "--me", "mine", is_flag=True, help="Show only the GPUs that you hold, use or wait for."
)
@memory_threshold_option
@click.option("--wide", is_flag=True, help="Shorten nothing, however narrow the terminal is.")
@click.option(
    "--watch",
    "watch_s",
    type=click.FloatRange(MIN_WATCH_S, MAX_WATCH_S),
    metavar="[SECONDS]",
    is_flag=False,
    flag_value=DEFAULT_WATCH_S,
    callback=_reject_nan,
    help=f"Show it again every {DEFAULT_WATCH_S:g} seconds, or as many as are given, until Ctrl-C.",
)
@color_option
@json_option
@click.pass_context
def status(
    context: click.Context, /, nodes: Sequence[str], watch_s: float | None, **options: Any
) -> None:
    """Show every GPU, who holds it, and what it really does.

    This node's GPUs are scanned now; another node's are shown as it last published
    them, with the age of that scan. Nothing is changed.

    \b
    A GPU is one of:
      available                    free and clean
      in use                       reserved, by the user shown
      in use, WITHOUT RESERVATION  used by someone who has not reserved it
      quarantined                  held back, for the reason shown
      unknown                      it could not be read; never taken for available

    Whoever is on a reserved GPU that is not theirs is named under DETAILS. On a
    terminal that is too narrow cells are cut; --wide shows them whole.

    With --watch, a terminal is redrawn in place; elsewhere the tables are printed
    when something has changed, and with --json one document a line each time.

    \b
    Examples:
      canhazgpu status
      canhazgpu status --node gpu01 --node gpu02
      canhazgpu status --me --watch 5
      canhazgpu status --memory-threshold 512
      canhazgpu status --json | jq '.nodes[].gpus[] | select(.state == "available")'
    """  # noqa: D301 - click reads the character: keep these lines
    from canhazgpu.service.status import StatusRequest  # noqa: PLC0415 - not for the help

    app: App = context.obj
    form = _renderer(context, watching=watch_s is not None, options=options)
    request = StatusRequest(
        tuple(nodes),
        options["memory_threshold"],
        names_caller=form.mine,
        revocations=form.mine and not form.watching,
    )
    if watch_s is None:
        _print_once(app, request, form)
    else:
        _watch(app, request, form, watch_s)


def _renderer(context: click.Context, *, watching: bool, options: dict[str, Any]) -> StatusRenderer:
    app: App = context.obj
    on_terminal = app.width() is not None
    return StatusRenderer(
        as_json=options["as_json"],
        watching=watching,
        wide=options["wide"],
        coloured=use_colour(context.color, app.environ, on_terminal=on_terminal),
        mine=options["mine"],
    )


def _print_once(app: App, request: StatusRequest, form: StatusRenderer) -> None:
    answer = app.service().status(request)
    click.echo("\n".join(form.lines(answer, app.width())))
    if len(answer.nodes) == 1 and answer.scan_fault:
        raise ScanError(answer.scan_fault)


def _watch(app: App, request: StatusRequest, form: StatusRenderer, interval_s: float) -> None:
    from canhazgpu.cli.status_display.watch import (  # noqa: PLC0415 - only with --watch
        FrameOutput,
        PrintOnChange,
        full_screen,
        print_frame,
        show_repeatedly,
    )

    service = app.service()

    def frame() -> Frame:
        return _frame(app, service, request, form)

    in_place = app.width() is not None and not form.as_json and not is_dumb_terminal(app.environ)
    with contextlib.ExitStack() as stack:
        # Ctrl-C is how a watch ends, and no failure.
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        show: FrameOutput = print_frame if form.as_json else PrintOnChange()
        if in_place:
            show = stack.enter_context(full_screen(f"every {interval_s:g} s, until Ctrl-C"))
        show_repeatedly(frame, show, interval_s, clock=app.clock, sleep=app.sleep)


def _frame(app: App, service: NodeService, request: StatusRequest, form: StatusRenderer) -> Frame:
    """Ask once; whatever may pass, as a store that is away, is shown in its place."""
    from canhazgpu.cli.status_display.watch import Frame  # noqa: PLC0415 - only with --watch
    from canhazgpu.status.comparison import comparison_key  # noqa: PLC0415

    try:
        answer = service.status(request)
    except InputError:
        raise
    except CanhazgpuError as exc:
        return _error_frame(exc, form)
    lines = form.lines(answer, app.width())
    return Frame(lines, answer.nodes[0].read_at, comparison_key(form.visible_nodes(answer)))


def _error_frame(error: CanhazgpuError, form: StatusRenderer) -> Frame:
    from canhazgpu.cli.status_display.watch import Frame  # noqa: PLC0415
    from canhazgpu.cli.terminal.text import printable  # noqa: PLC0415 - only with --watch
    from canhazgpu.status.json_format import iso_time  # noqa: PLC0415

    text, now = error_text(error), time.time()
    if form.as_json:
        line = json.dumps({"generated_at": iso_time(now), "error": text}, separators=(",", ":"))
    else:
        line = printable(f"Error: {text}")
    return Frame([line], now, text)
