"""Remember on the node that the store did not answer, so that not every hook waits for it.

A file records the outage. While the file is newer than `life_s`, no process asks the store. Once it
is older, one process tries the store, and the others go on without it. If the file cannot be
written, every process asks the store.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from canhazgpu.ledger.values import RECORD_ERRORS
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.state_files import (
    make_directory,
    read_if_owned,
    try_file_lock,
    write_atomically,
)


class StoreOutage:
    """The record of an outage of the store, shared by the processes of this node."""

    def __init__(
        self, state_dir: Path, life_s: float, clock: Callable[[], float] = uptime_s
    ) -> None:
        """Take the directory of the file, and for how long one failure counts."""
        self._path = state_dir / "store-outage"
        self._trial_lock = state_dir / ".store-trial.lock"
        self._life_s = life_s
        self._clock = clock
        self._trial_descriptor: int | None = None
        self._asked_at = clock()

    def reason_not_to_ask(self) -> str:
        """Return why the store is not to be asked now; "" if it is to be asked.

        If the recorded outage is old, only one process gets "": until it calls `note` or `clear`,
        or ends.
        """
        self._asked_at = self._clock()
        try:
            content = read_if_owned(self._path)
            if content is None:
                return ""
            why, age_s = self._parse(content)
            if 0 <= age_s < self._life_s:
                return why
            self._trial_descriptor = try_file_lock(self._trial_lock)
            return why if self._trial_descriptor is None else ""
        except OSError:
            return ""

    def reason_noted_meanwhile(self) -> str:
        """Return the outage that another process noted since this one asked; "" if none."""
        try:
            content = read_if_owned(self._path)
        except OSError:
            return ""
        why, age_s = self._parse(content) if content is not None else ("", 0.0)
        return why if 0 <= age_s < self._clock() - self._asked_at else ""

    def note(self, why: str) -> None:
        """Record that the store does not answer."""
        with contextlib.suppress(OSError):
            make_directory(self._path.parent)
            content = json.dumps({"why": why, "at": self._clock()}).encode()
            write_atomically(self._path, content)
        self._release_trial_lock()

    def clear(self) -> bool:
        """Remove the record of the outage; return whether there was one."""
        existed = False
        with contextlib.suppress(OSError):
            self._path.unlink()
            existed = True
        self._release_trial_lock()
        return existed

    def _release_trial_lock(self) -> None:
        if self._trial_descriptor is not None:
            os.close(self._trial_descriptor)
            self._trial_descriptor = None

    def _parse(self, content: bytes) -> tuple[str, float]:
        """Return the reason and its age; content that cannot be read counts as old."""
        try:
            data = json.loads(content)
            return str(data["why"]), self._clock() - float(data["at"])
        except RECORD_ERRORS:
            return "the store did not serve", self._life_s
