"""Remembers on the node that canhazgpu drained it, so that Slurm is not asked for nothing."""

from __future__ import annotations

import contextlib
from pathlib import Path

from canhazgpu.node.state_files import make_directory, write_atomically


class DrainRecord:
    """Whether the node may be drained by canhazgpu; never raises.

    A node whose records are new, as after a reboot, does not know: then it may be.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "not-drained"

    def may_be_drained(self) -> bool:
        """Tell whether it is worth asking the scheduler."""
        return not self._path.exists()

    def note_drained(self) -> None:
        """Remember that the node was drained."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def note_undrained(self) -> None:
        """Remember that the node is not drained by canhazgpu."""
        with contextlib.suppress(OSError):
            make_directory(self._path.parent)
            write_atomically(self._path, b"")
