"""An intent: a grant that the node's book has opened and not yet committed; a value."""

from __future__ import annotations

from canhazgpu.frozen_dataclass import dataclass
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

    def reservations(self) -> list[Reservation]:
        """Return what the owner would hold."""
        return [Reservation(gpu, self.claim, self.at) for gpu in self.gpus]
