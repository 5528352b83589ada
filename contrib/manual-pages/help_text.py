r"""The parts of a command's help text, as click reads it.

Paragraphs are apart by an empty line; one that begins with ``\b`` keeps its lines.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_EXIT_CODE = re.compile(r" *(\d+) +(.*)")


class Block(NamedTuple):
    """A paragraph; with `kept` its lines stay as they are."""

    lines: tuple[str, ...]
    kept: bool

    @property
    def text(self) -> str:
        """The paragraph in one line."""
        return " ".join(self.lines)


class HelpText(NamedTuple):
    """What is said of a command: in one sentence, at length, and by examples."""

    summary: str
    description: tuple[Block, ...]
    examples: tuple[Block, ...]


def parse_help(text: str) -> HelpText:
    """Return the parts; the examples begin where a block that keeps its lines says so."""
    blocks = tuple(_blocks(text))
    if not blocks:
        return HelpText("", (), ())
    first, *rest = blocks
    start = next(
        (at for at, one in enumerate(rest) if one.kept and one.lines[0].startswith("Example")),
        len(rest),
    )
    return HelpText(first.text.rstrip("."), tuple(rest[:start]), tuple(rest[start:]))


def parse_exit_codes(epilog: str) -> Sequence[tuple[str, str]]:
    """Return the exit codes with their meanings, as `canhazgpu.cli.exit_codes` writes them."""
    matches = (_EXIT_CODE.fullmatch(line) for line in epilog.splitlines())
    return [(one[1], one[2]) for one in matches if one]


def _blocks(text: str) -> Iterator[Block]:
    for part in re.split(r"\n[ \t]*\n", inspect.cleandoc(text)):
        lines = tuple(part.strip("\n").splitlines())
        kept = bool(lines) and lines[0].strip() == "\b"
        lines = lines[1:] if kept else tuple(line.strip() for line in lines)
        if lines:
            yield Block(lines, kept)
