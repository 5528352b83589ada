"""The files of the jobs' records on one node, and their lock.

Where jobs of two clusters have one number, the files of the later one are ``<id>@<cluster>…``.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from canhazgpu.errors import NodeStateError
from canhazgpu.ledger.local.jobs.job_record import FORMAT, JobRecord, record_from_dict
from canhazgpu.ledger.values import RECORD_ERRORS
from canhazgpu.node.state_files import (
    NotRegularFileError,
    file_lock,
    open_directory_to_users,
    read_regular_file,
    write_atomically,
)

CLUSTER_MARK = "@"
"""Stands in a file's name between a job's number and its cluster, whose name never has it."""
DRAFT = ".new"
"""What is being written: one for all files, for only who holds the lock writes."""


class JobFiles:
    """The files of one node's jobs; the methods may raise `OSError`."""

    def __init__(self, state_dir: Path) -> None:
        self._jobs = state_dir / "jobs"

    def stem(self, job_id: str, cluster: str) -> str:
        """Return the name of the job's files without their ending; never raises."""
        marked = f"{job_id}{CLUSTER_MARK}{cluster}"
        if not cluster:
            return job_id
        if os.path.lexists(self.record_path(marked)):
            return marked
        known = self.read_if_possible(job_id)
        return job_id if known is None or known.owner.cluster == cluster else marked

    def record_path(self, stem: str) -> Path:
        """Return the path of the job's record."""
        return self._jobs / f"{stem}.json"

    def env_path(self, stem: str) -> Path:
        """Return the path of what the task prolog reads."""
        return self._jobs / f"{stem}.env"

    def warning_path(self, stem: str) -> Path:
        """Return the path of the line for the job's user."""
        return self._jobs / f"{stem}.warning"

    def remove_task_files(self, stem: str) -> None:
        """Remove the files that the task prolog reads."""
        self.env_path(stem).unlink(missing_ok=True)
        self.warning_path(stem).unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the records; turn `OSError` into `NodeStateError`."""
        try:
            # Tasks, which are their users', read the records.
            open_directory_to_users(self._jobs.parent)
            open_directory_to_users(self._jobs)
            with file_lock(self._jobs / ".lock"):
                yield
        except OSError as exc:
            raise NodeStateError(
                f"cannot keep the node's records in {exc.filename or self._jobs}: {exc.strerror}"
            ) from exc

    def read(self, stem: str) -> JobRecord | None:
        """Return the record, None if there is no readable one."""
        try:
            record = record_from_dict(json.loads(read_regular_file(self.record_path(stem))))
        except (FileNotFoundError, NotRegularFileError, AttributeError, *RECORD_ERRORS):
            return None
        owner = record.owner
        stems = (owner.job_id, f"{owner.job_id}{CLUSTER_MARK}{owner.cluster}")
        return record if stem in stems else None

    def read_if_possible(self, stem: str) -> JobRecord | None:
        """Return the record, None if there is no readable one; never raises."""
        try:
            return self.read(stem)
        except OSError:
            return None

    def read_error(self, stem: str) -> str:
        """Return why the record cannot be read; "" if there is no record."""
        path = self.record_path(stem)
        try:
            found = json.loads(read_regular_file(path))["format"]
        except FileNotFoundError:
            return ""
        except (NotRegularFileError, *RECORD_ERRORS):
            found = FORMAT
        why = "" if found == FORMAT else f" (format {found!r:.20}, of another release)"
        return f"{path} cannot be read{why}: its job's GPUs are released by the job's number alone"

    def write(self, stem: str, record: JobRecord) -> None:
        """Replace the record."""
        self.write_text(self.record_path(stem), json.dumps(asdict(record)))

    def write_text(self, path: Path, text: str) -> None:
        """Replace a file that everybody may read; the caller holds the lock."""
        write_atomically(path, text.encode(), 0o644, self._jobs / DRAFT)

    def stems(self, pattern: str = "*") -> list[str]:
        """Return the names of the records that match, sorted, without their ending."""
        return sorted(path.stem for path in self._jobs.glob(f"{pattern}.json") if path.is_file())
