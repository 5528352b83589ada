"""`canhazgpu admin forget`: remove a node from the ledger."""

from __future__ import annotations

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.terminal.output import print_sanitized, sanitized_errors
from canhazgpu.errors import StoreError


@click.command(epilog=exit_codes(StoreError))
@click.argument("node")
@click.pass_obj
def forget(app: App, node: str) -> None:
    """Remove a node that is gone, with its scan, quarantines and queue; needs root.

    Its history stays, for reports. Refused while a GPU of it is reserved. A node that
    still runs comes back with its next scan.

    \b
    Example:
      canhazgpu admin forget gpu07
    """  # noqa: D301 - click reads the character: keep these lines
    with sanitized_errors():
        app.service().forget_node(node)
    print_sanitized(f"forgot {node}; its history is kept")
