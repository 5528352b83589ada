"""An intent: a grant that the node's book has opened and not yet committed; and its JSON; pure."""

from __future__ import annotations

from typing import Any

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.journal_entries import seconds_of
from canhazgpu.ledger.record_json import (
    UNREADABLE_OWNER,
    reservation_from_json,
    reservation_to_json,
)
from canhazgpu.ledger.values import Claim, Reservation
from canhazgpu.node.process_id import ProcessId


@dataclass(frozen=True, slots=True)
class Intent:
    """One owner's intent to hold these GPUs (UUIDs).

    `number` is the grant's, one of the journal's numbers; no other grant of the node has it.
    `writer` is the process that opened the intent and alone may commit it, until the node's uptime
    `deadline_s` (seconds). `at` is in seconds since the epoch by the store's clock.
    """

    number: int
    claim: Claim
    gpus: tuple[str, ...]
    writer: ProcessId
    deadline_s: float
    at: float

    @property
    def expires_at(self) -> float | None:
        """The end of a grant for a time, in seconds since the epoch; None without one."""
        duration_s = self.claim.duration_s
        return None if duration_s is None else self.at + duration_s

    def reservations(self) -> list[Reservation]:
        """Return what the owner would hold."""
        return [Reservation(gpu, self.claim, self.at, self.expires_at) for gpu in self.gpus]


def intent_to_dict(intent: Intent) -> dict[str, Any]:
    """Return the intent for JSON."""
    return {
        "number": intent.number,
        "claim": reservation_to_json(Reservation("", intent.claim, intent.at)),
        "gpus": list(intent.gpus),
        "writer": [intent.writer.pid, intent.writer.started],
        "deadline_s": intent.deadline_s,
        "at": intent.at,
    }


def intent_from_dict(data: dict[str, Any]) -> Intent:
    """Return the intent that `intent_to_dict` wrote; raises one of `RECORD_ERRORS` otherwise."""
    claim = reservation_from_json("", data["claim"]).claim
    if claim.owner == UNREADABLE_OWNER:
        raise ValueError("an intent has a claim")
    pid, started = map(int, data["writer"])
    return Intent(
        int(data["number"]),
        claim,
        tuple(map(str, data["gpus"])),
        ProcessId(pid, started),
        seconds_of(data["deadline_s"]),
        seconds_of(data["at"]),
    )
