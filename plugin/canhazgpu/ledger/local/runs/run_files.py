"""The records of a node's runs: one file for each, which only root reads and writes."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from canhazgpu.ledger.local.runs.run_record import (
    RunRecord,
    run_record_from_json,
    run_record_to_json,
)
from canhazgpu.ledger.values import RECORD_ERRORS
from canhazgpu.node.state_files import read_if_owned, write_atomically

RUNS_DIRECTORY = "runs"
DIRECTORY_MODE = 0o700
SUFFIX = ".json"
DRAFT_LIFE_S = 60.0
"""Nobody writes a record for so long: an older draft is of a process that was killed."""


class RunFiles:
    """The records in a node's state directory."""

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir / RUNS_DIRECTORY

    def make_directory(self) -> None:
        """Make the directory, so that it can be watched. Raises `OSError`."""
        self.directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)

    def write(self, record: RunRecord) -> None:
        """Write a run's record. Raises `OSError`."""
        self.make_directory()
        # A note may have bytes that are no text (`with_valid_text`): they keep nobody from a grant.
        content = run_record_to_json(record).encode("utf-8", "replace")
        write_atomically(self._path(record.owner), content)

    def remove(self, owner: str) -> None:
        """Remove the record of the owner's run, if there is one. Raises `OSError`."""
        self._path(owner).unlink(missing_ok=True)

    def owners(self) -> set[str]:
        """Return the owners that have a file here."""
        try:
            names = os.listdir(self.directory)  # noqa: PTH208 - names
        except OSError:
            return set()
        suffix = len(SUFFIX)
        return {one[:-suffix] for one in names if one.endswith(SUFFIX) and not one.startswith(".")}

    def load(self, owner: str, boot_id: str | None) -> RunRecord | None:
        """Return the owner's run of this boot; None for none, and for what is no record of one."""
        # A file that was removed meanwhile, another user's, or one of another release.
        with contextlib.suppress(OSError, *RECORD_ERRORS):
            record = run_record_from_json(read_if_owned(self._path(owner)) or b"")
            if record.owner == owner and boot_id in (None, record.claim.boot_id):
                return record
        return None

    def read(self, boot_id: str | None) -> tuple[RunRecord, ...]:
        """Return the runs of this boot."""
        found = (self.load(owner, boot_id) for owner in sorted(self.owners()))
        return tuple(one for one in found if one is not None)

    def remove_others(self, boot_id: str | None) -> None:
        """Remove what `read` leaves out: the runs of an earlier boot, and what is no record.

        And what killed processes have left half written.
        """
        for owner in self.owners():
            if self.load(owner, boot_id) is None:
                with contextlib.suppress(OSError):
                    self.remove(owner)
        for draft in self.directory.glob(f".*{SUFFIX}.new"):
            with contextlib.suppress(OSError):
                if draft.lstat().st_mtime < time.time() - DRAFT_LIFE_S:
                    draft.unlink()

    def _path(self, owner: str) -> Path:
        if "/" in owner or owner.startswith("."):
            raise ValueError(f"no owner of a run: {owner!r}")
        return self.directory / f"{owner}{SUFFIX}"
