"""The attempts that ended a short time ago: ``<state_dir>/ended/``.

A job's record is removed with its end. A prolog that began before that end, and gets to its work
after it, finds the end here. It is kept for as long as such a prolog may live.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from canhazgpu.ledger.owner import JobOwner
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.state_files import make_directory, read_regular_file, write_atomically

DIRECTORY = "ended"
KEPT_S = 600.0
"""Longer than any prolog: its script, and what it waits for, end by limits of a minute or two."""
CLEANED_FROM = 256
"""So many files are looked through for old ones."""


class EndedAttempts:
    """The ends of attempts on one node."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / DIRECTORY

    def note(self, owner: JobOwner, run_id: str) -> None:
        """Note that the attempt ends now. Raises `OSError`."""
        make_directory(self._directory)
        self._forget_old()
        content = {"owner": owner.token, "run_id": run_id, "ended_at": uptime_s()}
        write_atomically(self._path(owner), json.dumps(content).encode())

    def has_ended_since(self, owner: JobOwner, run_id: str, since: float) -> bool:
        """Return whether the attempt ended at that time or later (seconds since boot).

        What cannot be read says nothing: the record of the job decides then.
        """
        try:
            found = json.loads(read_regular_file(self._path(owner)))
            is_it = found["owner"] == owner.token and found["run_id"] in (run_id, "")
            return bool(is_it and found["ended_at"] >= since)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return False

    def _path(self, owner: JobOwner) -> Path:
        # Clusters have jobs of the same number, and any name.
        return self._directory / f"{owner.job_id}.{owner.cluster.encode().hex()[:200]}"

    def _forget_old(self) -> None:
        with os.scandir(self._directory) as found:
            entries = list(found)
        if len(entries) < CLEANED_FROM:
            return
        oldest = time.time() - KEPT_S
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_mtime < oldest:
                    os.unlink(entry.path)  # noqa: PTH108 - hundreds of names
