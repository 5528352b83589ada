"""What the node did while the ledger's store was gone, in a file, until the store has it.

One line for each entry: the CRC of the rest, and JSON. The first line names the journal by a random
token; with an entry's number it lets the store take each entry once. A line that a crash cut short
is as if it had never been begun; one that does not fit its CRC is left out and told.

Not synchronised with the disk: see `own_files.replace_own`. Its caller holds the node's lock.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canhazgpu.errors import NodeStateError
from canhazgpu.ledger.entries import Entry, Numbered, entry_from_dict, entry_to_dict
from canhazgpu.ledger.values import UNREADABLE
from canhazgpu.node.own_files import read_own, replace_own

FORMAT = 1
JOURNAL = "journal"
"""The file's name in the node's state directory."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What the store does not have yet; `damage` says what was lost of it, "" for nothing.

    `last` is the number of the last entry ever made, `size` how much of the file is whole lines.
    """

    token: str
    entries: tuple[Numbered, ...] = ()
    last: int = 0
    size: int = 0
    damage: str = ""


class Journal:
    """The journal of one node, in one file; every method may raise `OSError`."""

    def __init__(self, path: Path, node: str) -> None:
        self._path = path
        self._node = node

    def read(self) -> Pending:
        """Return what is pending; a file that is no journal of this node is set aside."""
        content = read_own(self._path)
        if content is None:
            return Pending(os.urandom(8).hex())
        head, *lines = content.split(b"\n")
        token, after = self._header(_payload(head))
        if not token:
            aside = self._path.with_name(f"{self._path.name}.unreadable")
            self._path.replace(aside)
            damage = f"{self._path} is no journal of this node and release: moved to {aside}"
            return Pending(os.urandom(8).hex(), damage=damage)
        # Behind the last line's end there is nothing, or what a crash cut short.
        entries = [_numbered(_payload(line)) for line in lines[:-1]]
        good = tuple(one for one in entries if one is not None and one.number > after)
        lost = entries.count(None)
        return Pending(
            token,
            good,
            max([after, *(one.number for one in good)]),
            len(content) - len(lines[-1]) if lines else 0,
            f"what cannot be read in {self._path} is left out: {lost} lines" if lost else "",
        )

    def append(self, pending: Pending, entries: Sequence[Entry]) -> Pending:
        """Add entries behind what is pending; returns what is pending then."""
        numbered = tuple(
            Numbered(pending.last + place, entry) for place, entry in enumerate(entries, 1)
        )
        text = b"".join(map(_line, numbered))
        if pending.size:
            self._write_behind(pending.size, text)
        else:
            # A new file: one that is there may be another user's, which is not read.
            text = self._first_line(pending.token, pending.last) + text
            replace_own(self._path, text)
        return Pending(
            pending.token,
            (*pending.entries, *numbered),
            pending.last + len(numbered),
            pending.size + len(text),
        )

    def _write_behind(self, size: int, text: bytes) -> None:
        descriptor = os.open(
            self._path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "wb", buffering=0) as stream:
            os.ftruncate(descriptor, size)
            stream.seek(size)
            if stream.write(text) != len(text):
                os.ftruncate(descriptor, size)
                raise OSError(None, "no room for an entry of the journal")

    def drop(self, pending: Pending, through: int) -> Pending:
        """Remove the entries up to this number: the store has them."""
        left = tuple(one for one in pending.entries if one.number > through)
        content = self._first_line(pending.token, pending.last if not left else through)
        content += b"".join(map(_line, left))
        replace_own(self._path, content)
        return Pending(pending.token, left, pending.last, len(content))

    def _header(self, data: Any) -> tuple[str, int]:
        """Return the token and the number after which entries count; "" for no header of ours."""
        try:
            if (data["format"], data["node"]) == (FORMAT, self._node):
                return str(data["token"]), int(data["after"])
        except UNREADABLE:
            pass
        return "", 0

    def _first_line(self, token: str, after: int) -> bytes:
        head = {"format": FORMAT, "node": self._node, "token": token, "after": after}
        return _sealed(head)


def pending_entries(state_dir: Path, node: str) -> list[Entry]:
    """Return what a node's journal has for the store, without changing anything.

    Raises `NodeStateError` where it may not be read.
    """
    path = state_dir / JOURNAL
    try:
        lines = (read_own(path) or b"").split(b"\n")[1:-1]
    except OSError as exc:
        raise NodeStateError(f"cannot read {path} of {node}: {exc.strerror}") from exc
    numbered = [_numbered(_payload(line)) for line in lines]
    return [one.entry for one in numbered if one is not None]


def _line(one: Numbered) -> bytes:
    return _sealed({"number": one.number, **entry_to_dict(one.entry)})


def _sealed(data: dict[str, Any]) -> bytes:
    text = json.dumps(data, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _payload(line: bytes) -> Any:
    """Return what the line says, None where it does not fit its seal."""
    seal, _, text = line.partition(b" ")
    try:
        return json.loads(text) if int(seal, 16) == zlib.crc32(text) else None
    except UNREADABLE:
        return None


def _numbered(data: Any) -> Numbered | None:
    try:
        number = data["number"]
        return Numbered(number, entry_from_dict(data)) if type(number) is int else None
    except (*UNREADABLE, AttributeError):
        return None
