"""The option ``--node`` of commands about one node."""

from __future__ import annotations

import click

from canhazgpu.cli.options.value_completion import complete_nodes

node_option = click.option(
    "--node",
    metavar="NAME",
    shell_complete=complete_nodes,
    help="Of this node.  [default: where you are]",
)
