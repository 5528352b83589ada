"""Text as troff's man macros read it: escaped, so that no text is taken for a request.

What is escaped, and why: groff_char(7), man-pages(7). All output is ASCII.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator

LINE_LENGTH = 78
"""Longest line of filled text, in characters; `mandoc -T lint` wants less than 80."""

_ESCAPES = {
    "\\": r"\(rs",
    "-": r"\-",  # else a hyphen, which a shell does not take for an option
    "'": r"\(aq",
    "`": r"\(ga",
    "^": r"\(ha",
    "~": r"\(ti",
    '"': r"\(dq",
}
_CODE_SPAN = re.compile(r"(`[^`\n]+`)")


def escaped(text: str) -> str:
    """Return one line's text, in which nothing but its letters is left."""
    return "".join(map(_escaped_character, text))


def _escaped_character(one: str) -> str:
    if one in _ESCAPES:
        return _ESCAPES[one]
    if " " <= one <= "~":
        return one
    if unicodedata.category(one)[0] in "CZ":
        return " " if one.isspace() else ""
    return rf"\[u{ord(one):04X}]"


def bold(text: str) -> str:
    """Return the text, escaped, in bold."""
    return rf"\fB{escaped(text)}\fR"


def italic(text: str) -> str:
    """Return the text, escaped, in italics."""
    return rf"\fI{escaped(text)}\fR"


def prose(text: str) -> str:
    """Return text, escaped; what stands between backticks is bold."""
    parts = _CODE_SPAN.split(" ".join(text.split()))
    return "".join(
        bold(part[1:-1]) if number % 2 else escaped(part) for number, part in enumerate(parts)
    )


def filled(text: str) -> Iterator[str]:
    """Return lines of filled text; the text is escaped already."""
    lines = textwrap.wrap(text, LINE_LENGTH, break_long_words=False, break_on_hyphens=False)
    return map(_guarded, lines)


def literal(lines: Iterable[str]) -> Iterator[str]:
    """Return lines that are shown as they are."""
    # Not .EX: at its end groff hyphenates again.
    yield from (".RS 4", ".nf")
    for line in textwrap.dedent("\n".join(lines)).splitlines():
        yield _guarded(escaped(line.rstrip()))
    yield from (".fi", ".RE")


def _guarded(line: str) -> str:
    # A quote at the beginning is escaped already.
    return rf"\&{line}" if line.startswith(".") else line


def section(title: str, body: Iterable[str]) -> Iterator[str]:
    """Return the section, nothing where its body is empty."""
    lines = list(body)
    if lines:
        yield f".SH {title}"
        # A section begins a paragraph itself.
        yield from lines[1:] if lines[0] == ".PP" else lines


def paragraph(text: str) -> Iterator[str]:
    """Return a paragraph; the text is escaped already."""
    yield ".PP"
    yield from filled(text)


def tagged(tag: str, text: str) -> Iterator[str]:
    """Return a tag and the text beside it; both are escaped already."""
    yield ".TP"
    yield _guarded(tag)
    yield from filled(text or r"\&")
