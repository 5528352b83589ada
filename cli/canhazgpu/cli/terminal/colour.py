"""Whether the output is coloured."""

from __future__ import annotations

from collections.abc import Mapping

import click


def _set_color(context: click.Context, _parameter: click.Parameter, choice: str) -> None:
    # Where click itself looks before it takes colour out of what goes to no terminal.
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


def is_dumb_terminal(environ: Mapping[str, str]) -> bool:
    """Tell whether the terminal does no more than print lines."""
    return environ.get("TERM") == "dumb"


def use_colour(chosen: bool | None, environ: Mapping[str, str], *, on_terminal: bool) -> bool:
    """Decide; what the command line says (`context.color`) counts over the environment.

    NO_COLOR says no with any value but the empty one: https://no-color.org.
    """
    if chosen is not None:
        return chosen
    return on_terminal and not environ.get("NO_COLOR") and not is_dumb_terminal(environ)
