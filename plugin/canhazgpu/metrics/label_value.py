"""The values of labels: short, and harmless wherever they are shown."""

from __future__ import annotations

MAX_LABEL = 120
"""Characters of a label's value; each is kept by Prometheus with each of its series."""
UNKNOWN = "unknown"
OTHERS = "(others)"
"""Stands for the users beyond those that are told by name; no user can have this name."""


def label_value(text: str | None) -> str:
    """Return the text in one line, without control and format characters, or surrogates.

    Each of them becomes ``?``: escape codes, line ends, and what changes the direction of writing.
    """
    shown = (text or "")[:MAX_LABEL]
    return shown if shown.isprintable() else "".join(c if c.isprintable() else "?" for c in shown)
