"""The journal: a file of the entries that the store does not have yet.

Each line is one entry: a CRC, and JSON. The first line holds the journal's random token. With the
token and an entry's number the store records each entry once. A line that a crash cut short is
ignored. A line whose CRC does not match is left out and reported.

There is no fsync: see `state_files.write_atomically`. The caller holds the lock of the book.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canhazgpu.errors import NodeStateError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.journal_entries import (
    JournalEntry,
    NumberedEntry,
    entry_from_dict,
    entry_to_dict,
)
from canhazgpu.ledger.values import RECORD_ERRORS
from canhazgpu.node.state_files import open_regular_file, read_if_owned, write_atomically

FORMAT = 1
JOURNAL_FILE = "journal"
"""The file's name in the node's state directory."""


@dataclass(frozen=True, slots=True)
class PendingEntries:
    """The entries that the store does not have yet.

    `last` is the number of the last entry ever written, and `size` the length of the file's whole
    lines. `damage` describes what could not be read, "" if everything could. `is_new` says that
    there is no journal yet, and the token is a new one.
    """

    token: str
    entries: tuple[NumberedEntry, ...] = ()
    last: int = 0
    size: int = 0
    damage: str = ""
    is_new: bool = False


class Journal:
    """The journal of one node, in one file; every method may raise `OSError`."""

    def __init__(self, path: Path, node: str) -> None:
        self._path = path
        self._node = node

    def read(self) -> PendingEntries:
        """Return the pending entries; a file that is no journal of this node is renamed."""
        content = read_if_owned(self._path)
        if content is None:
            return PendingEntries(os.urandom(8).hex(), is_new=True)
        head, *lines = content.split(b"\n")
        token, after = self._header(_checked_payload(head))
        if not token:
            aside = self._path.with_name(f"{self._path.name}.unreadable")
            self._path.replace(aside)
            damage = f"{self._path} is no journal of this node and release: moved to {aside}"
            return PendingEntries(os.urandom(8).hex(), damage=damage)
        # After the last newline there is nothing, or a line that a crash cut short.
        entries = [_numbered_entry(_checked_payload(line)) for line in lines[:-1]]
        good = tuple(one for one in entries if one is not None and one.number > after)
        lost = entries.count(None)
        return PendingEntries(
            token,
            good,
            max([after, *(one.number for one in good)]),
            len(content) - len(lines[-1]) if lines else 0,
            f"what cannot be read in {self._path} is left out: {lost} lines" if lost else "",
        )

    def append(self, pending: PendingEntries, entries: Sequence[JournalEntry]) -> PendingEntries:
        """Append the entries; returns all pending entries."""
        numbered = tuple(
            NumberedEntry(pending.last + offset, entry) for offset, entry in enumerate(entries, 1)
        )
        text = b"".join(map(_line, numbered))
        if pending.size:
            self._append_at(pending.size, text)
        else:
            # A new file replaces another user's, which `read` ignored.
            text = self._first_line(pending.token, pending.last) + text
            write_atomically(self._path, text)
        return PendingEntries(
            pending.token,
            (*pending.entries, *numbered),
            pending.last + len(numbered),
            pending.size + len(text),
        )

    def _append_at(self, size: int, text: bytes) -> None:
        descriptor = open_regular_file(self._path, os.O_CREAT | os.O_WRONLY)
        with os.fdopen(descriptor, "wb", buffering=0) as stream:
            os.ftruncate(descriptor, size)
            stream.seek(size)
            if stream.write(text) != len(text):
                os.ftruncate(descriptor, size)
                raise OSError(None, "no room for an entry of the journal")

    def drop(self, pending: PendingEntries, through: int) -> PendingEntries:
        """Remove the entries up to this number: the store has them."""
        left = tuple(one for one in pending.entries if one.number > through)
        content = self._first_line(pending.token, pending.last if not left else through)
        content += b"".join(map(_line, left))
        write_atomically(self._path, content)
        return PendingEntries(pending.token, left, pending.last, len(content))

    def remove(self) -> None:
        """Remove the journal: the next one has another token."""
        self._path.unlink(missing_ok=True)

    def _header(self, data: Any) -> tuple[str, int]:
        """Return the token, and the number after which entries count; ("", 0) if not ours."""
        try:
            if (data["format"], data["node"]) == (FORMAT, self._node):
                return str(data["token"]), int(data["after"])
        except RECORD_ERRORS:
            pass
        return "", 0

    def _first_line(self, token: str, after: int) -> bytes:
        head = {"format": FORMAT, "node": self._node, "token": token, "after": after}
        return _with_checksum(head)


def pending_entries(state_dir: Path, node: str) -> list[JournalEntry]:
    """Return the entries of a node's journal; changes nothing.

    Raises `NodeStateError` if the file may not be read.
    """
    path = state_dir / JOURNAL_FILE
    try:
        lines = (read_if_owned(path) or b"").split(b"\n")[1:-1]
    except OSError as exc:
        raise NodeStateError(f"cannot read {path} of {node}: {exc.strerror}") from exc
    numbered = [_numbered_entry(_checked_payload(line)) for line in lines]
    return [one.entry for one in numbered if one is not None]


def _line(one: NumberedEntry) -> bytes:
    return _with_checksum({"number": one.number, **entry_to_dict(one.entry)})


def _with_checksum(data: dict[str, Any]) -> bytes:
    text = json.dumps(data, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _checked_payload(line: bytes) -> Any:
    """Return the JSON of the line, None if the checksum does not match."""
    checksum, _, text = line.partition(b" ")
    try:
        return json.loads(text) if int(checksum, 16) == zlib.crc32(text) else None
    except RECORD_ERRORS:
        return None


def _numbered_entry(data: Any) -> NumberedEntry | None:
    try:
        number = data["number"]
        return NumberedEntry(number, entry_from_dict(data)) if type(number) is int else None
    except (*RECORD_ERRORS, AttributeError):
        return None
