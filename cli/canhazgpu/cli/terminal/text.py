"""Make text of users safe to print on a terminal, and measure its width."""

from __future__ import annotations

import re
import unicodedata

ELLIPSIS = "…"
MAX_COMBINING_MARKS = 3
"""Combining marks kept on one character: no language has more, and many cover other lines."""

_ESCAPE_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # control sequences
    # Strings to the terminal; of one without an end only its beginning: it hides nothing.
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])(?:.*?(?:\x07|\x1b\\|\x9c))?"
    r"|\x1b[ -/]*[0-~]?",
    re.DOTALL,
)
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARK_CATEGORIES = frozenset({"Mn", "Me"})


def printable(text: str) -> str:
    """Return the text on one line, without anything that controls a terminal.

    Users choose the names of users, jobs and processes. The function removes escape sequences,
    control characters, line and paragraph separators, and marks that change the direction of text.
    """
    if text.isascii() and text.isprintable():
        return text
    plain = _ESCAPE_SEQUENCES.sub("", text)
    kept: list[str] = []
    marks = 0
    for one in plain:
        category = unicodedata.category(one)
        marks = marks + 1 if category in _MARK_CATEGORIES else 0
        if category not in _UNSAFE_CATEGORIES and marks <= MAX_COMBINING_MARKS:
            kept.append(one)
    return "".join(kept)


def truncated(text: str, width: int) -> str:
    """Return the text cut to `width` columns of the terminal; a cut text ends in ``…``."""
    if text_width(text) <= width:
        return text
    room = width - len(ELLIPSIS)
    for end, one in enumerate(text):
        room -= text_width(one)
        if room < 0:
            return text[:end] + ELLIPSIS
    return text


def text_width(text: str) -> int:
    """Return the width in columns: wide characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.category(one) in _MARK_CATEGORIES
        else 2
        if unicodedata.east_asian_width(one) in "WF"
        else 1
        for one in text
    )
