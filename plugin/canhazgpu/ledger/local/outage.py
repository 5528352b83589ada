"""Remember on the node that the store did not answer, so that not every hook waits for it.

A file records the outage. While the file is newer than `life_s`, no process waits long for the
store. Once it is older, one process waits as usual, and the others do not. If the file cannot be
written, every process waits as usual.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from canhazgpu.ledger.values import RECORD_ERRORS
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.state_files import (
    make_directory,
    read_if_owned,
    try_file_lock,
    write_atomically,
)

OUTAGE_FILE = "store-outage"
"""The file's name in the node's state directory."""


class Outage(NamedTuple):
    """An outage: why the store did not serve, and by the node's uptime since when (seconds).

    `noted_at` is when the store was last found away.
    """

    why: str
    noted_at: float
    since: float


def read_outage(state_dir: Path) -> Outage | None:
    """Return the outage that is recorded, None if none is; raises `OSError`."""
    content = read_if_owned(state_dir / OUTAGE_FILE)
    if content is None:
        return None
    try:
        data = json.loads(content)
        noted_at = float(data["at"])
        return Outage(str(data["why"]), noted_at, float(data.get("since", noted_at)))
    except RECORD_ERRORS:
        return Outage("the store did not serve", -math.inf, 0.0)


class StoreOutage:
    """The record of an outage of the store, shared by the processes of this node."""

    def __init__(
        self, state_dir: Path, life_s: float, clock: Callable[[], float] = uptime_s
    ) -> None:
        """Take the directory of the file, and for how long one failure counts."""
        self._state_dir = state_dir
        self._path = state_dir / OUTAGE_FILE
        self._trial_lock = state_dir / ".store-trial.lock"
        self._life_s = life_s
        self._clock = clock
        self._trial_descriptor: int | None = None
        self._asked_at = clock()

    def known_reason(self) -> str:
        """Return why the store is not to be waited for now; "" if it is to be waited for.

        If the recorded outage is old, only one process gets "": until it calls `note` or `clear`,
        or ends.
        """
        self._asked_at = self._clock()
        try:
            outage = read_outage(self._state_dir)
            if outage is None:
                return ""
            if 0 <= self._clock() - outage.noted_at < self._life_s:
                return outage.why
            self._trial_descriptor = try_file_lock(self._trial_lock)
            return outage.why if self._trial_descriptor is None else ""
        except OSError:
            return ""

    def reason_noted_meanwhile(self) -> str:
        """Return the outage that another process noted since this one asked; "" if none."""
        try:
            outage = read_outage(self._state_dir)
        except OSError:
            return ""
        if outage is None or not self._asked_at < outage.noted_at <= self._clock():
            return ""
        return outage.why

    def note(self, why: str) -> None:
        """Record that the store does not answer."""
        with contextlib.suppress(OSError):
            make_directory(self._path.parent)
            before, now = read_outage(self._state_dir), self._clock()
            since = before.since if before is not None and 0 < before.since <= now else now
            content = json.dumps({"why": why, "at": now, "since": since}).encode()
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
