"""What a node's book says that holds after a reboot, too; pure.

The book is lost with `node.state_dir` when a node reboots, and the store may be away then. Whoever
reserved a GPU until tomorrow has it all the same, and a GPU in quarantine stays there. Once the
store answers, its word counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field, replace

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.co_holders import change_holders, select_holders
from canhazgpu.ledger.local.book.book import Book, is_job_owner
from canhazgpu.ledger.local.book.saved_book import quarantines_from_list, quarantines_to_list
from canhazgpu.ledger.record_json import reservation_from_json, reservation_to_json
from canhazgpu.ledger.values import Quarantine, Reservation

FORMAT = 1


@dataclass(frozen=True, slots=True)
class OutlastingRecords:
    """Reservations that have an end and depend on no boot, and quarantines; both by GPU."""

    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    quarantines: Mapping[str, Quarantine] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.reservations or self.quarantines)


NOTHING_OUTLASTS = OutlastingRecords()


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


def outlasting_to_bytes(records: OutlastingRecords, node: str) -> bytes:
    """Return the content of the node's file."""
    held = {gpu: reservation_to_json(one) for gpu, one in records.reservations.items()}
    quarantines = quarantines_to_list(records.quarantines.values())
    data = {"format": FORMAT, "node": node, "held": held, "quarantines": quarantines}
    return json.dumps(data).encode()


def outlasting_from_bytes(content: bytes, node: str) -> OutlastingRecords:
    """Return the records of a file with this content.

    Raises one of `RECORD_ERRORS` or `AttributeError` for what is no file of this node.
    """
    data = json.loads(content)
    if (data["format"], data["node"]) != (FORMAT, node):
        raise ValueError(f"it is not of format {FORMAT} and node {node!r}")
    held = {str(gpu): reservation_from_json(gpu, text) for gpu, text in data["held"].items()}
    quarantines = quarantines_from_list(data["quarantines"])
    return outlasting_records(Book(held, quarantines=quarantines))
