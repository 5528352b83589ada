"""See that a node's journal is not empty, and when a file of its directory has changed."""

from __future__ import annotations

from pathlib import Path

from canhazgpu.agent.watcher.directory_watch import DirectoryWatch
from canhazgpu.ledger.local.book.journal import JOURNAL_FILE
from canhazgpu.node.state_files import read_if_owned


class JournalWatch(DirectoryWatch):
    """The journal of one node; see `DirectoryWatch`."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self._path = state_dir / JOURNAL_FILE
        self._known: tuple[tuple[int, int, int], bool] | None = None

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
