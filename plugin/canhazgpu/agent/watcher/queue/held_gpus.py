"""See that GPUs of the node have been released, by what the node publishes of its book."""

from __future__ import annotations

import json
from pathlib import Path

from canhazgpu.agent.watcher.directory_watch import DirectoryWatch
from canhazgpu.ledger.local.book.published_book import PUBLISHED_FILE
from canhazgpu.node.state_files import read_if_trusted


class HeldGpus(DirectoryWatch):
    """The GPUs that the node's book has as held; see `DirectoryWatch`.

    It is a hint, for whoever looks anyway: where nothing is published, nothing is told.
    """

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self._path = state_dir / PUBLISHED_FILE
        self._content: tuple[int, int] | None = None
        self._now: frozenset[str] = frozenset()
        self._before: frozenset[str] = frozenset()

    def note(self) -> None:
        """Remember what is held now."""
        self._before = self._read()

    def were_freed(self) -> bool:
        """Tell whether one was released since `note`."""
        self.forget_events()
        return not self._before <= self._read()

    def _read(self) -> frozenset[str]:
        """Return what is held; what it was before, where that cannot be read."""
        try:
            found = self._path.stat()
            content = (found.st_ino, found.st_mtime_ns)
            if content != self._content:
                self._now = frozenset(json.loads(read_if_trusted(self._path) or b"{}")["gpus"])
                self._content = content
        except (OSError, ValueError, KeyError, TypeError):
            return self._now
        return self._now
