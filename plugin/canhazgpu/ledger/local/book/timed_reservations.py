"""People's reservations for a time, in a file that outlasts a reboot.

The book is lost with `node.state_dir` when a node reboots, and the store may be away then. Whoever
reserved a GPU until tomorrow has it all the same. Once the store answers, it says who holds what.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from canhazgpu.ledger.co_holders import change_holders, select_holders
from canhazgpu.ledger.local.book.book import is_job_owner
from canhazgpu.ledger.record_json import reservation_from_json, reservation_to_json
from canhazgpu.ledger.values import Reservation
from canhazgpu.node.state_files import read_if_trusted, write_durably

FORMAT = 1


def timed_reservations(reservations: Mapping[str, Reservation]) -> dict[str, Reservation]:
    """Return those that have an end and depend on no boot, without what a heartbeat changes."""
    timed = select_holders(
        reservations,
        lambda one: (
            one.expires_at is not None
            and one.claim.boot_id is None
            and not is_job_owner(one.claim.owner)
        ),
    )
    return change_holders(timed, lambda one: replace(one, renewed_at=None, idle_s=0.0))


class TimedReservations:
    """The file with the reservations of one node; only root, or its owner, reads and writes it."""

    def __init__(self, path: Path, node: str) -> None:
        self.path = path
        self._node = node

    def read(self) -> dict[str, Reservation]:
        """Return them by GPU, none where there is no file that another user cannot write.

        Raises `OSError`, and one of `RECORD_ERRORS` or `AttributeError` for what is no such file.
        """
        content = read_if_trusted(self.path)
        if content is None:
            return {}
        data = json.loads(content)
        if (data["format"], data["node"]) != (FORMAT, self._node):
            raise ValueError(f"it is not of format {FORMAT} and node {self._node!r}")
        held = {str(gpu): reservation_from_json(gpu, text) for gpu, text in data["held"].items()}
        return timed_reservations(held)

    def write(self, held: Mapping[str, Reservation]) -> None:
        """Write them to the disk, as a node may lose power now. Raises `OSError`.

        What cannot be written is not there: an old file would give GPUs to who has left.
        """
        if not held:
            self.path.unlink(missing_ok=True)
            return
        texts = {gpu: reservation_to_json(one) for gpu, one in held.items()}
        data = {"format": FORMAT, "node": self._node, "held": texts}
        try:
            write_durably(self.path, json.dumps(data).encode())
        except OSError:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
            raise

    def is_there(self) -> bool:
        """Return whether there is a file."""
        return os.path.lexists(self.path)
