"""Whether the output is coloured."""

from __future__ import annotations

from collections.abc import Mapping


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
