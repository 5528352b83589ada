"""The option that names the one node a command is about."""

from __future__ import annotations

import click

from canhazgpu.cli.options.value_completion import complete_nodes

node_option = click.option(
    "--node",
    metavar="NAME",
    shell_complete=complete_nodes,
    help="Of this node.  [default: where you are]",
)
