"""`canhazgpu status`: show every GPU, who holds it, and who uses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import (
    color_option,
    json_option,
    memory_threshold_option,
    nodes_option,
)
from canhazgpu.cli.options.param_types import Seconds
from canhazgpu.cli.options.status_filter import (
    parse_status_filter,
    status_filter_options,
    status_filter_text,
)
from canhazgpu.cli.options.value_completion import complete_nodes
from canhazgpu.cli.status_display.printing import (
    print_document,
    print_frame,
    print_once,
    print_stream,
)
from canhazgpu.cli.status_display.renderer import StatusRenderer
from canhazgpu.cli.suggestions import ARGUMENTS
from canhazgpu.cli.terminal.colour import use_colour
from canhazgpu.errors import NodeStateError, ScanError, StoreError

DEFAULT_WATCH_S = 2.0
MIN_WATCH_S = 0.1
MAX_WATCH_S = 86400.0


def _parse_size(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    if value is None:
        return None
    columns, _, lines = value.partition("x")
    if not (columns.isdecimal() and lines.isdecimal() and len(value) < 16):
        raise click.BadParameter("a size is COLUMNSxLINES")
    return int(columns), int(lines)


@click.command(
    epilog=exit_codes(
        ScanError,
        StoreError,
        NodeStateError,
        others={
            0: "everything is shown",
            2: "no such node, user or partition, or wrong options, values or configuration",
            3: "no GPU can be read",
            4: "the store did not serve: what it alone knows is missing",
            6: "this node's book was lost: what its jobs hold is missing",
        },
    )
)
@nodes_option("Show", complete_nodes)
@click.option(
    "--me", "mine", is_flag=True, help="Show only the GPUs that you hold, use or wait for."
)
@status_filter_options
@memory_threshold_option
@click.option(
    "-s/ ",
    "--summary/--no-summary",
    "summary",
    default=None,
    help="One line for each node.  [default: where a terminal has no room for the tables of all"
    " nodes]",
)
@click.option(
    "--wide",
    is_flag=True,
    help="Shorten nothing, however narrow the terminal is, and show the GPUs' utilization.",
)
@click.option(
    "--watch",
    "watch_s",
    type=Seconds(MIN_WATCH_S, MAX_WATCH_S),
    metavar="[SECONDS]",
    is_flag=False,
    flag_value=DEFAULT_WATCH_S,
    help=f"Show it again every {DEFAULT_WATCH_S:g} seconds, or as many as are given, until q"
    " or Ctrl-C.",
)
@click.option("--as-frame", "frame", hidden=True, callback=_parse_size)
@color_option
@json_option
@click.option(
    "--stream", is_flag=True, help="With --json: one node a line, written while others are read."
)
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
    terminal that is too narrow empty columns are left out and cells are cut; --wide
    shows them whole. A terminal that has no room for the tables of all nodes shows a
    summary, one line for each node; a pipe always gets the tables.

    Options that choose GPUs or nodes can be combined: what is shown meets all of them.
    Where one is given several times, or with a list (a,b), any of its values counts;
    --free is short for --state available. In a summary the number of a node's GPUs
    stays that of all of them. Where nothing is left, a line says so (JSON has no nodes),
    and the exit status is 0.

    Without the store this node alone is shown: its scan, and the reservations that its
    hooks published. Standard error says so, and no GPU is available then.

    With --watch, a terminal is redrawn in place. The arrows, the page keys, Home and
    End scroll, s changes between summary and tables, q ends. Elsewhere the tables are
    printed when something has changed, and with --json one document a line each time.

    --json --stream writes one node a line (JSON Lines), sorted by name, each with the time
    at which it was read. It needs little memory, however many nodes there are. Only an exit
    status of 0 says that no node is missing.

    \b
    Examples:
      canhazgpu status
      canhazgpu status --node gpu01 --node gpu02
      canhazgpu status --me --watch 5
      canhazgpu status --summary --free --partition gpu
      canhazgpu status --state unreserved,quarantined --watch
      canhazgpu status --user alice --model llama
      canhazgpu status --memory-threshold 512
      canhazgpu status --json | jq '.nodes[].gpus[] | select(.state == "available")'
      canhazgpu status --json --stream | jq -c '[.node, (.gpus | length)]'
    """  # noqa: D301 - click reads the character: keep these lines
    from canhazgpu.service.status import StatusRequest  # noqa: PLC0415 - not for the help

    app: App = context.obj
    if options["stream"]:
        _require_stream_options(watch_s, options)
    watching = watch_s is not None or options["frame"] is not None
    renderer = _renderer(context, watching=watching, options=options)
    height = None if nodes else app.height()
    request = StatusRequest(
        tuple(nodes),
        options["memory_threshold"],
        names_caller=renderer.mine,
        revocations=renderer.mine and not renderer.watching,
        brief_above=renderer.brief_above(height),
        shown=renderer.shown,
        counts_above=renderer.counts_above(height),
        tables_suffice=renderer.tables_suffice(app.width()),
        wide=renderer.wide,
        texts_suffice=renderer.texts_suffice,
        of_users=renderer.of_users,
    )
    if options["frame"] is not None:
        print_frame(app, request, renderer, options["frame"])
    elif options["stream"]:
        print_stream(app, request, renderer)
    elif watch_s is None and _is_document(app, renderer):
        print_document(app, request, renderer)
    elif watch_s is None:
        print_once(app, request, renderer)
    elif agent := app.agent():
        _watch_agent(context, agent, watch_s)
    else:
        from canhazgpu.cli.status_display.live_view import watch_status  # noqa: PLC0415 - only with --watch

        watch_status(app, request, renderer, watch_s)


def _require_stream_options(watch_s: float | None, options: dict[str, Any]) -> None:
    """Raise `click.UsageError` for options that do not go together."""
    if not options["as_json"]:
        raise click.UsageError("--stream needs --json")
    others = {"--watch": watch_s is not None, "--me": options["mine"]}
    others["--summary"] = bool(options["summary"])
    for name in [name for name, is_given in others.items() if is_given]:
        raise click.UsageError(f"--stream and {name} exclude each other: give one of them")


def _is_document(app: App, renderer: StatusRenderer) -> bool:
    """Tell whether a program gets the JSON of all nodes."""
    in_full = renderer.as_json and not renderer.summary and not renderer.mine
    return in_full and app.width() is None


def _watch_agent(context: click.Context, agent: str, watch_s: float) -> None:
    """Show on this terminal what the node's agent reads."""
    from canhazgpu.cli.status_display.agent_view import AgentView, asked_at  # noqa: PLC0415 - only with --watch
    from canhazgpu.cli.status_display.live_view import show_view  # noqa: PLC0415

    words = context.find_root().meta[ARGUMENTS]
    view = AgentView(asked_at(agent), words, watch_s)
    show_view(context.obj, view, watch_s, on_screen=True)
    click.echo(view.told, nl=False, err=True)
    if view.fault is not None:
        click.echo(f"Error: {view.fault[1]}", err=True)
        context.exit(view.fault[0])


def _renderer(context: click.Context, *, watching: bool, options: dict[str, Any]) -> StatusRenderer:
    app: App = context.obj
    on_terminal = app.width() is not None
    return StatusRenderer(
        as_json=options["as_json"],
        watching=watching,
        wide=options["wide"],
        coloured=use_colour(context.color, app.environ, on_terminal=on_terminal),
        mine=options["mine"],
        filter=parse_status_filter(options),
        filter_text=status_filter_text(options),
        summary=options["summary"],
    )
