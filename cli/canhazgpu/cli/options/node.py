"""The option ``--node`` of commands about one node."""

from __future__ import annotations

import click

from canhazgpu.cli.options.value_completion import complete_nodes

NODE_EXIT_CODES = {75: "another node, which was asked to do it, did not answer in time"}
"""Of commands that have another node change what is its own."""

node_option = click.option(
    "--node",
    metavar="NAME",
    shell_complete=complete_nodes,
    help="Of this node.  [default: where you are]",
)
