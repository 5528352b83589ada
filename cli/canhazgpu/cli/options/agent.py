"""Options of commands about the agent of this host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from canhazgpu.cli.options.param_types import Seconds

MAX_TIMEOUT_S = 86400.0

own_node_option = click.option(
    "--node",
    "-n",
    metavar="NAME",
    help="The node's name, where several slurmd run on this host."
    "  [default: node.name, $SLURMD_NODENAME or the host's name]",
)


def timeout_option(default_s: float, meaning: str) -> Callable[[Any], Any]:
    """Return the option ``--timeout``, in seconds; `meaning` is its help."""
    return click.option(
        "-t",
        "--timeout",
        "timeout_s",
        type=Seconds(0, MAX_TIMEOUT_S, min_open=True),
        default=default_s,
        show_default=True,
        metavar="SECONDS",
        help=meaning,
    )
