"""See that there are records of runs, and when one came or went."""

from __future__ import annotations

import contextlib
from pathlib import Path

from canhazgpu.agent.watcher.directory_watch import DirectoryWatch
from canhazgpu.ledger.local.runs.run_files import RunFiles


class RunsWatch(DirectoryWatch):
    """The records of one node's runs; see `DirectoryWatch`."""

    def __init__(self, state_dir: Path) -> None:
        self.files = RunFiles(state_dir)
        # Where it cannot be made there are no runs either.
        with contextlib.suppress(OSError):
            self.files.make_directory()
        super().__init__(self.files.directory, removals=True)

    def has_runs(self) -> bool:
        """Return whether there is a file of a run."""
        return bool(self.files.owners())
