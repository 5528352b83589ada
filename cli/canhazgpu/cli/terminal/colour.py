"""Decide whether the output is coloured."""

from __future__ import annotations

from collections.abc import Mapping


def is_dumb_terminal(environ: Mapping[str, str]) -> bool:
    """Tell whether the terminal can only print lines."""
    return environ.get("TERM") == "dumb"


def use_colour(chosen: bool | None, environ: Mapping[str, str], *, on_terminal: bool) -> bool:
    """Decide; `chosen` (`context.color`) wins over the environment, None if nothing was chosen.

    Any value of NO_COLOR but the empty one means no colour: https://no-color.org.
    """
    if chosen is not None:
        return chosen
    return on_terminal and not environ.get("NO_COLOR") and not is_dumb_terminal(environ)
