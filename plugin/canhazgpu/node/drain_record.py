"""Record on the node whether canhazgpu may have drained it; it saves needless calls to Slurm."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from canhazgpu.node.state_files import make_directory, write_atomically


class DrainRecord:
    """Whether canhazgpu may have drained the node; never raises.

    Without a record that can be reached, as after a reboot, it may have.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "not-drained"

    def may_be_drained(self) -> bool:
        """Return whether canhazgpu may have drained the node."""
        return not os.access(self._path, os.F_OK)

    def note_drained(self) -> None:
        """Record that canhazgpu drained the node."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def note_undrained(self) -> None:
        """Record that the node is not drained by canhazgpu."""
        with contextlib.suppress(OSError):
            make_directory(self._path.parent)
            write_atomically(self._path, b"")
