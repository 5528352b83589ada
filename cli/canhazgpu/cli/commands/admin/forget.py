"""`canhazgpu admin forget`: remove a node from the ledger."""

from __future__ import annotations

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.terminal.output import print_sanitized, sanitized_errors
from canhazgpu.errors import StoreError


@click.command(epilog=exit_codes(StoreError))
@click.argument("node")
@click.option(
    "--release",
    "releases",
    is_flag=True,
    help="Release what is reserved there, too; only of a node that was not seen for half an hour.",
)
@click.pass_obj
def forget(app: App, node: str, releases: bool) -> None:
    """Remove a node that is gone, with its scan, quarantines, queue and history; needs root.

    Reports then lack it: 'canhazgpu report --node NODE --days 90 --csv' keeps what it
    was used for. Refused while a GPU of it is reserved. A node that still runs comes
    back with its next scan.

    \b
    Examples:
      canhazgpu admin forget gpu07
      canhazgpu admin forget gpu07 --release
    """  # noqa: D301 - click reads the character: keep these lines
    with sanitized_errors():
        app.service().forget_node(node, releases=releases)
    print_sanitized(f"forgot {node}")
