"""Lay out the summary of the status: one line for each node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from canhazgpu.cli.status_display.table import TONE_COLOURS
from canhazgpu.cli.terminal.text import ELLIPSIS, printable, text_width, truncated
from canhazgpu.status.summary import NodeSummary, summary_parts
from canhazgpu.status.table_cells import Tone

GAP = "  "
USERS_SHOWN = (None, 8, 4, 2, 1, 0)
"""How many users a list names, the first number that fits the terminal; None means all."""

Part = tuple[str, Tone]


def summary_lines(
    summaries: Sequence[NodeSummary],
    terminal_width: int | None,
    *,
    coloured: bool = False,
    shows_none_free: bool = True,
) -> Iterator[str]:
    """Yield ``n1  8 GPUs  3 free  4 u1,u2  1 u3 WITHOUT RESERVATION`` for each node.

    On a narrow terminal lists of users are shortened first, then a line is cut and ends in ``…``.
    `terminal_width` None cuts nothing. See `summary_parts` for `shows_none_free`.
    """
    names = [printable(one.node) for one in summaries]
    name_width = max(map(text_width, names), default=0)
    digits = max((len(str(one.total)) for one in summaries), default=0)
    for name, one in zip(names, summaries, strict=True):
        plural = "s" if one.total != 1 else " "
        head = (
            f"{name}{' ' * (name_width - text_width(name))}{GAP}{one.total:>{digits}} GPU{plural}"
        )
        parts = [(head, Tone.PLAIN), *_fitting_parts(one, head, terminal_width, shows_none_free)]
        yield _joined(parts, terminal_width, coloured=coloured).rstrip()


def _fitting_parts(
    one: NodeSummary, head: str, terminal_width: int | None, shows_none_free: bool
) -> list[Part]:
    parts: list[Part] = []
    for limit in USERS_SHOWN:
        found = summary_parts(one, max_users=limit, shows_none_free=shows_none_free)
        parts = [(printable(text), tone) for text, tone in found]
        width = text_width(head) + sum(len(GAP) + text_width(text) for text, _ in parts)
        if terminal_width is None or width <= terminal_width:
            break
    return parts


def _joined(parts: Sequence[Part], terminal_width: int | None, *, coloured: bool) -> str:
    """Join the parts, cut to the width; colours take none of it."""
    shown = list(parts) if terminal_width is None else _cut(parts, terminal_width)
    painted = []
    for text, tone in shown:
        colour = TONE_COLOURS.get(tone) if coloured else None
        painted.append(click.style(text, fg=colour) if colour else text)
    return GAP.join(painted)


def _cut(parts: Sequence[Part], width: int) -> list[Part]:
    """Return the parts that fit the width; where that is not all, the last one ends in ``…``."""
    kept: list[Part] = []
    room = width
    for place, (text, tone) in enumerate(parts):
        is_last = place == len(parts) - 1
        needed = text_width(text) + (0 if is_last else len(GAP) + len(ELLIPSIS))
        if needed > room:
            # With blanks behind it: what fits alone is cut too, for others follow.
            kept.append((truncated(text if is_last else text + GAP * 2, room), tone))
            break
        kept.append((text, tone))
        room -= text_width(text) + len(GAP)
    return kept
