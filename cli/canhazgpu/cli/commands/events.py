"""`canhazgpu events`: show the events of nodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option, nodes_option
from canhazgpu.durations import parse_duration
from canhazgpu.errors import StoreError
from canhazgpu.service.history import EventsRequest

if TYPE_CHECKING:
    from canhazgpu.status.event_format import NodeEvent

DEFAULT_SINCE = "1h"


@click.command(epilog=exit_codes(StoreError))
@nodes_option("Show")
@click.option(
    "--since",
    metavar="TIME",
    default=DEFAULT_SINCE,
    show_default=True,
    help="Go back so far, as 90s, 30m, 2h or 7d.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens from now on.")
@json_option
@click.pass_obj
def events(app: App, nodes: Sequence[str], since: str, follow: bool, as_json: bool) -> None:
    """Show what happened: grants, releases, quarantines, and what Slurm's hooks decided.

    With --json each line is one event.

    \b
    Examples:
      canhazgpu events
      canhazgpu events --since 7d --node gpu01
      canhazgpu events --follow --json | jq 'select(.kind == "quarantine")'
    """  # noqa: D301 - click reads the character: keep these lines
    service = app.service()
    shown = service.events(EventsRequest(parse_duration(since), tuple(nodes)))
    clusters: set[str] = set()
    _print_events(shown.events, clusters, as_json)
    if follow:
        for one in service.follow(shown):
            _print_events([one], clusters, as_json)


def _print_events(shown: Sequence[NodeEvent], clusters: set[str], as_json: bool) -> None:
    """Print the events; `clusters` keeps those that were seen, as several are told apart."""
    from canhazgpu.cli.terminal.text import printable  # noqa: PLC0415 - only where something happened
    from canhazgpu.status.event_format import clusters_in, event_line, event_to_dict  # noqa: PLC0415

    clusters |= clusters_in(shown)
    several = len(clusters) > 1
    for one in shown:
        line = event_line(one, names_cluster=several)
        click.echo(json.dumps(event_to_dict(one)) if as_json else printable(line))
