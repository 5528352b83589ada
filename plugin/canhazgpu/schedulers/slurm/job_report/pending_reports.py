"""What the node has yet to tell Slurm's accounting of its jobs: a small file for each report."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.values import RECORD_ERRORS
from canhazgpu.node.state_files import make_directory, read_if_owned, write_atomically
from canhazgpu.schedulers.slurm.job_report.accounted_job import JobReport

DIRECTORY = "job-reports"
MAX_REPORTS = 200
"""Where Slurm's accounting is away for long, the oldest ones are lost."""


class PendingReports:
    """The reports of the node whose directory this is."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / DIRECTORY

    def add(self, owner: JobOwner, ended_at: float, line: str) -> None:
        """Add what there is to tell of an attempt. Raises `OSError`."""
        make_directory(self._directory)
        report = {"job_id": owner.job_id, "ended_at": ended_at, "line": line}
        path = self._directory / f"{owner.job_id}-{owner.attempt}.json"
        write_atomically(path, json.dumps(report).encode())

    def read(self) -> Iterator[tuple[Path, JobReport]]:
        """Yield the reports with their files, the latest first; what is too much is removed."""
        known = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for path in self._directory.glob("[0-9]*.json"):
                with contextlib.suppress(OSError):
                    known.append((path.lstat().st_mtime, path))
        for place, (_, path) in enumerate(sorted(known, reverse=True)):
            report = _parsed(path) if place < MAX_REPORTS else None
            if report is None:
                remove(path)
            else:
                yield path, report


def remove(path: Path) -> None:
    """Remove a report's file; what cannot be removed is tried again."""
    with contextlib.suppress(OSError):
        path.unlink()


def _parsed(path: Path) -> JobReport | None:
    try:
        data = json.loads(read_if_owned(path) or b"")
        report = JobReport(str(data["job_id"]), float(data["ended_at"]), str(data["line"]))
    except (*RECORD_ERRORS, OSError):
        return None
    return report if report.job_id.isdecimal() else None
