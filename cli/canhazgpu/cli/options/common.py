"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from canhazgpu.cli.terminal.text import printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

json_option = click.option(
    "-j", "--json", "as_json", is_flag=True, help="Print JSON, with every field, for programs."
)


def nodes_option(
    verb: str,
    shell_complete: Callable[..., list[CompletionItem]] | None = None,
) -> Callable[[Any], Any]:
    """Return the option ``--node`` of commands about several nodes; its help begins with `verb`."""
    return click.option(
        "--node",
        "nodes",
        metavar="NAME",
        multiple=True,
        shell_complete=shell_complete,
        help=f"{verb} this node only; may be given several times.  [default: all that are known]",
    )


MAX_THRESHOLD_MB = 10**9
"""More than any GPU has; a number without end would be in every message about it."""


memory_threshold_option = click.option(
    "--memory-threshold",
    type=click.IntRange(0, MAX_THRESHOLD_MB),
    metavar="MB",
    help="A GPU with more used memory than this is in use.  "
    "[default: validation.memory_threshold_mb]",
)


config_option = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help="Read this configuration file.  "
    "[default: $CANHAZGPU_CONFIG or /etc/canhazgpu/config.toml]",
)


def parse_overrides(
    _context: click.Context, _parameter: click.Parameter, values: Sequence[str]
) -> dict[str, str]:
    """Turn ``SECTION.KEY=VALUE`` options into a mapping; the last value of a key counts."""
    overrides = {}
    for value in values:
        key, separator, text = value.partition("=")
        if not separator or "." not in key:
            raise click.BadParameter(
                f"{key!r} is not SECTION.KEY=VALUE, as in validation.memory_threshold_mb=512"
            )
        overrides[key.strip()] = text
    return overrides


set_option = click.option(
    "--set",
    "overrides",
    metavar="SECTION.KEY=VALUE",
    multiple=True,
    callback=parse_overrides,
    help="Set a configuration key, over file and environment; may be given several times.",
)


MAX_REASON_LENGTH = 200
"""Longest reason, in characters: status shows it in a cell of a table."""


def reason_option(meaning: str) -> Callable[[Any], Any]:
    """Return the required option ``--reason``; `meaning` is its help."""
    return click.option(
        "--reason", required=True, metavar="TEXT", callback=_parse_reason, help=meaning
    )


def _parse_reason(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    words = " ".join(printable(" ".join(value.split())).split())
    if not words or len(words) > MAX_REASON_LENGTH:
        raise click.BadParameter(f"accepted: some words, at most {MAX_REASON_LENGTH} characters")
    return words


def _set_color(context: click.Context, _parameter: click.Parameter, choice: str) -> None:
    # click reads this before it removes colours from output that goes to no terminal.
    context.color = None if choice == "auto" else choice == "always"


color_option = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    expose_value=False,
    callback=_set_color,
    help="Colour the output; auto: on a terminal, unless NO_COLOR is set or TERM is dumb.",
)
