"""What people have said of a node's GPUs, in a file that outlasts a reboot.

The book is lost with `node.state_dir` when a node reboots, and the store may be away then. Whoever
reserved a GPU until tomorrow has it all the same, and a GPU in quarantine stays there. Once the
store answers, its word counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field, replace
from pathlib import Path

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.co_holders import change_holders, select_holders
from canhazgpu.ledger.local.book.book import Book, is_job_owner
from canhazgpu.ledger.local.book.saved_book import quarantines_from_list, quarantines_to_list
from canhazgpu.ledger.record_json import reservation_from_json, reservation_to_json
from canhazgpu.ledger.values import Quarantine, Reservation
from canhazgpu.node.state_files import read_if_trusted, write_durably

FORMAT = 1


@dataclass(frozen=True, slots=True)
class OutlastingRecords:
    """Reservations that have an end and depend on no boot, and quarantines; both by GPU."""

    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    quarantines: Mapping[str, Quarantine] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.reservations or self.quarantines)


def outlasting_records(book: Book) -> OutlastingRecords:
    """Return those of the book, without what a heartbeat changes."""
    timed = select_holders(
        book.reservations,
        lambda one: (
            one.expires_at is not None
            and one.claim.boot_id is None
            and not is_job_owner(one.claim.owner)
        ),
    )
    timed = change_holders(timed, lambda one: replace(one, renewed_at=None, idle_s=0.0))
    return OutlastingRecords(timed, book.quarantines)


class OutlastingFile:
    """The file with the records of one node; its owner alone reads and writes it."""

    def __init__(self, path: Path, node: str) -> None:
        self.path = path
        self._node = node

    def read(self) -> OutlastingRecords:
        """Return its records, none where there is no file, or one that another user can write.

        Raises `OSError`, and one of `RECORD_ERRORS` or `AttributeError` for what is no such file.
        """
        content = read_if_trusted(self.path)
        if content is None:
            return OutlastingRecords()
        data = json.loads(content)
        if (data["format"], data["node"]) != (FORMAT, self._node):
            raise ValueError(f"it is not of format {FORMAT} and node {self._node!r}")
        held = {str(gpu): reservation_from_json(gpu, text) for gpu, text in data["held"].items()}
        quarantines = quarantines_from_list(data["quarantines"])
        return outlasting_records(Book(held, quarantines=quarantines))

    def write(self, records: OutlastingRecords) -> None:
        """Write them to the disk, as a node may lose power now. Raises `OSError`.

        What cannot be written is not there: an old file would give GPUs to who has left.
        """
        if not records:
            self.path.unlink(missing_ok=True)
            return
        held = {gpu: reservation_to_json(one) for gpu, one in records.reservations.items()}
        quarantines = quarantines_to_list(records.quarantines.values())
        data = {"format": FORMAT, "node": self._node, "held": held, "quarantines": quarantines}
        try:
            write_durably(self.path, json.dumps(data).encode())
        except OSError:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
            raise

    def is_there(self) -> bool:
        """Return whether there is a file."""
        return os.path.lexists(self.path)
