"""See that a node's journal is not empty, and when its directory has changed (inotify(7))."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

from canhazgpu.ledger.local.book.journal import JOURNAL_FILE
from canhazgpu.node.state_files import read_if_owned

IN_CLOSE_WRITE, IN_MOVED_TO = 0x8, 0x80
EVENTS_BYTES = 4096


class JournalWatch:
    """The journal of one node; `descriptor` becomes readable when a file of its directory changed.

    The descriptor is None where the kernel gives none; then changes are not seen.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / JOURNAL_FILE
        self._known: tuple[tuple[int, int, int], bool] | None = None
        self.descriptor = _watch(state_dir)

    def forget_events(self) -> None:
        """Read the events, whatever they are: the file itself is looked at."""
        if self.descriptor is not None:
            with suppress(BlockingIOError):
                while os.read(self.descriptor, EVENTS_BYTES):
                    pass

    def has_entries(self) -> bool:
        """Return whether the journal has a line after its first; a file that cannot be read no."""
        try:
            found = self._path.stat()
            content = (found.st_ino, found.st_size, found.st_mtime_ns)
            if self._known is None or self._known[0] != content:
                lines = (read_if_owned(self._path) or b"").count(b"\n")
                self._known = (content, lines > 1)
        except OSError:
            return False
        return self._known[1]


def _watch(directory: Path) -> int | None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        return None
    if libc.inotify_add_watch(descriptor, os.fsencode(directory), IN_CLOSE_WRITE | IN_MOVED_TO) < 0:
        os.close(descriptor)
        return None
    return int(descriptor)
