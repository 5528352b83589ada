"""The records of a node's runs: one file for each, which only root reads and writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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
        write_atomically(self._path(record.owner), run_record_to_json(record).encode())

    def remove(self, owner: str) -> None:
        """Remove the record of the owner's run, if there is one. Raises `OSError`."""
        self._path(owner).unlink(missing_ok=True)

    def read(self, boot_id: str | None) -> tuple[RunRecord, ...]:
        """Return the runs of this boot; what is no record of one is left out."""
        return tuple(
            one for _, one in self._found() if one and boot_id in (None, one.claim.boot_id)
        )

    def remove_others(self, boot_id: str | None) -> None:
        """Remove what `read` leaves out: the runs of an earlier boot, and what is no record."""
        for path, one in self._found():
            if one is None or boot_id not in (None, one.claim.boot_id):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _found(self) -> Iterator[tuple[Path, RunRecord | None]]:
        try:
            paths = sorted(self.directory.glob(f"[!.]*{SUFFIX}"))
        except OSError:
            return
        for path in paths:
            record = None
            # One that was removed meanwhile, another user's, or one of another release.
            with contextlib.suppress(OSError, *RECORD_ERRORS):
                content = read_if_owned(path)
                if content is None:
                    continue
                record = run_record_from_json(content)
                if self._path(record.owner) != path:
                    record = None
            yield path, record

    def _path(self, owner: str) -> Path:
        if "/" in owner or owner.startswith("."):
            raise ValueError(f"no owner of a run: {owner!r}")
        return self.directory / f"{owner}{SUFFIX}"
