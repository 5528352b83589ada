"""What users are to be told when they next give a command on this node: what was taken from them.

One file for each user, ``<state_dir>/notices/UID.json``, root's alone. It goes with a reboot, as
everything in that directory; the history keeps the same for longer.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from canhazgpu.ledger.notice import Notice
from canhazgpu.ledger.values import RECORD_ERRORS
from canhazgpu.node.state_files import file_lock, make_directory, read_if_owned, write_atomically

DIRECTORY = "notices"
LOCK = ".lock"
DIRECTORY_MODE = 0o700
MAX_NOTICES = 20
"""For one user; of more, the latest stay."""
MAX_TEXT = 500


class Notices:
    """The notices of one node's users. Only a process of root's has any; nothing here raises."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / DIRECTORY

    def add(self, uid: int | None, notice: Notice) -> None:
        """Keep a notice for a user; what cannot be kept is lost, for the history has it."""
        if uid is None or os.geteuid() != 0:
            return
        short = Notice(
            notice.gpus[:MAX_TEXT], notice.at, notice.by[:MAX_TEXT], notice.reason[:MAX_TEXT]
        )
        with contextlib.suppress(OSError):
            make_directory(self._directory.parent)
            self._directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            with file_lock(self._directory / LOCK):
                kept = [*self._read(uid), short][-MAX_NOTICES:]
                text = json.dumps([asdict(one) for one in kept])
                write_atomically(self._file(uid), text.encode("utf-8", "replace"))

    def take(self, uid: int) -> Sequence[Notice]:
        """Return a user's notices, and forget them."""
        # Most have none, and nobody waits for a lock then.
        if os.geteuid() != 0 or not self._file(uid).exists():
            return ()
        try:
            with file_lock(self._directory / LOCK):
                found = self._read(uid)
                self._file(uid).unlink(missing_ok=True)
        except OSError:
            return ()
        return found

    def _read(self, uid: int) -> list[Notice]:
        try:
            found = json.loads(read_if_owned(self._file(uid)) or b"[]")
            return [
                Notice(str(one["gpus"]), float(one["at"]), str(one["by"]), str(one["reason"]))
                for one in found
            ]
        except (*RECORD_ERRORS, OSError, AttributeError):
            return []

    def _file(self, uid: int) -> Path:
        return self._directory / f"{uid}.json"
