"""Remembers that the store did not serve, so that not every hook waits for it anew.

A file with a short life: while it is fresh nobody asks the store; when it is old, one process asks
and the others go on without. A node that cannot keep the file asks every time.
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
    """What is known of the store's state on this node."""

    def __init__(
        self, state_dir: Path, life_s: float, clock: Callable[[], float] = uptime_s
    ) -> None:
        """Take where to remember, and for how long one failure counts."""
        self._path = state_dir / "store-outage"
        self._trial_lock = state_dir / ".store-trial.lock"
        self._life_s = life_s
        self._clock = clock
        self._trial_descriptor: int | None = None
        self._asked_at = clock()

    def reason_not_to_ask(self) -> str:
        """Return why the store is not to be asked now; "" where it is.

        Where an outage has become old, whoever is told to ask is the only one until it has told
        the outcome, or has ended.
        """
        self._asked_at = self._clock()
        try:
            content = read_if_owned(self._path)
            if content is None:
                return ""
            why, age_s = self._parsed(content)
            if 0 <= age_s < self._life_s:
                return why
            self._trial_descriptor = try_file_lock(self._trial_lock)
            return why if self._trial_descriptor is None else ""
        except OSError:
            return ""

    def reason_noted_meanwhile(self) -> str:
        """Return why, where another process has found an outage since this one began to ask."""
        try:
            content = read_if_owned(self._path)
        except OSError:
            return ""
        why, age_s = self._parsed(content) if content is not None else ("", 0.0)
        return why if 0 <= age_s < self._clock() - self._asked_at else ""

    def note(self, why: str) -> None:
        """Remember that the store does not serve."""
        with contextlib.suppress(OSError):
            make_directory(self._path.parent)
            content = json.dumps({"why": why, "at": self._clock()}).encode()
            write_atomically(self._path, content)
        self._release_trial_lock()

    def clear(self) -> bool:
        """Forget the outage; tells whether there was one."""
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

    def _parsed(self, content: bytes) -> tuple[str, float]:
        """Return why, and how long ago; what cannot be read is as old as can be."""
        try:
            data = json.loads(content)
            return str(data["why"]), self._clock() - float(data["at"])
        except RECORD_ERRORS:
            return "the store did not serve", self._life_s
