"""The node's own files of accounts: they are read without a name service."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from canhazgpu.agent.callers.subordinate_uids import SubordinateRange, parse_subuid

MAX_BYTES = 8 * 1024 * 1024
"""What is read of a file at most."""


@dataclass
class AccountFiles:
    """What passwd(5), group(5) and subuid(5) say; each is read once, when it is needed."""

    directory: Path = field(default=Path("/etc"))

    @cached_property
    def uids(self) -> dict[str, int]:
        """The users' numbers by name."""
        return _numbers(self._text("passwd"))

    @cached_property
    def names(self) -> dict[int, str]:
        """The users' names by number, the first one of each."""
        return {uid: name for name, uid in reversed(self.uids.items())}

    @cached_property
    def gids(self) -> dict[str, int]:
        """The groups' numbers by name."""
        return _numbers(self._text("group"))

    @cached_property
    def ranges(self) -> tuple[SubordinateRange, ...]:
        """The ranges of subordinate uids."""
        return parse_subuid(self._text("subuid"))

    def _text(self, name: str) -> str:
        """Return the file's text, "" where it cannot be read."""
        try:
            descriptor = os.open(self.directory / name, os.O_RDONLY | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as stream:
                return stream.read(MAX_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""


def _numbers(text: str) -> dict[str, int]:
    """Return the third field of each line by the first; lines without a number are left out."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, *fields = line.split(":", 3)
        if name and len(fields) > 1 and fields[1].isascii() and fields[1].isdecimal():
            found.setdefault(name, int(fields[1]))
    return found
