r"""Parse the text of Slurm's configuration files, as Slurm does (``parse_config.c``); pure.

A line holds ``Key=Value`` pairs, keys in any case. ``#`` begins a comment. ``\`` at the end of a
line, before any blanks and before a comment, continues it. Another ``\`` takes its meaning from the
character that follows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from canhazgpu.frozen_dataclass import dataclass

ConfPairs = dict[str, str]

_BLANKS = " \t\n\v\f\r"
"""What C's isspace() takes for a blank; Python knows more."""

_PAIR = re.compile(
    r"""\s*([A-Za-z0-9_.]+)\s*[-*+/]?=\s*(?:"([^"]*)"(?=\s|$)|(\S+))""", re.ASCII | re.DOTALL
)
_LINE_KEYS = frozenset({"name", "nodename"})
"""Keys that say what a line is about, where they begin it."""
_ESCAPED = re.compile(r"\\(.?)", re.DOTALL)
_COMMENT = re.compile(r"((?:[^\\#]|\\.)*)#.*", re.DOTALL)
_INCLUDE = re.compile(r"include\s+(\S+)(.*)", re.ASCII | re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ConfLine:
    """One line with its continuations: its pairs with keys in lower case, in the line's order.

    `rest` is the text behind the last pair that was understood, empty in a line without faults.
    `file` and `number` say where the line begins.
    """

    pairs: ConfPairs
    rest: str = ""
    file: str = ""
    number: int = 0

    @property
    def origin(self) -> str:
        """The line's file and number, for messages."""
        return f"{self.file} line {self.number}" if self.file else "a line"

    @property
    def leading_key(self) -> str:
        """The line's first key, which decides what the others mean; empty for none."""
        return next(iter(self.pairs), "")


def parse_line(text: str) -> ConfPairs:
    """Return the pairs of one line with comments and escapes, keys in lower case."""
    return parse_pairs(_unescaped(_without_comment(text)))[0]


def parse_pairs(text: str) -> tuple[ConfPairs, str]:
    """Return the pairs of a logical line, and the rest that is no pair.

    Of a key that occurs twice, the last value counts, but of the one that says what the line is
    about, the first.
    """
    pairs: ConfPairs = {}
    position = 0
    while found := _PAIR.match(text, position):
        key, quoted, plain = found[1].lower(), found[2], found[3]
        if not (key in pairs and key in _LINE_KEYS and key == next(iter(pairs))):
            pairs[key] = plain if quoted is None else quoted
        position = found.end()
    return pairs, text[position:].strip(_BLANKS)


def included_file(text: str) -> tuple[str, str] | None:
    """Return the file that a logical line includes, and the text behind it; None for others.

    Slurm knows the word at the beginning of a line alone.
    """
    found = _INCLUDE.match(text)
    return (found[1], found[2].strip(_BLANKS)) if found else None


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line with its continuations joined, and the number of its first line.

    Comments and escapes are gone. A comment on a line of its own ends a continued line.
    """
    first, parts = 1, list[str]()
    for number, physical in enumerate(text.split("\n"), start=1):
        line = _without_comment(physical.partition("\0")[0])
        continued = _continued_text(line)
        parts.append(line if continued is None else continued)
        if continued is None:
            yield first, _unescaped("".join(parts))
            first, parts = number + 1, []
    if parts:
        yield first, _unescaped("".join(parts))


def _continued_text(line: str) -> str | None:
    """Return the line without the backslash that continues it, None if it ends here."""
    text = line.rstrip(_BLANKS)
    backslashes = len(text) - len(text.rstrip("\\"))
    return text[:-1] if backslashes % 2 else None


def _without_comment(text: str) -> str:
    found = _COMMENT.fullmatch(text)
    return found[1] if found else text


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)
