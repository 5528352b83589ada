"""What the core needs of a ledger of reservations, whatever keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from canhazgpu.gpu.scan import Scan
from canhazgpu.ledger.values import Blocked, Claim, Granted, NodeView, Short


@dataclass(frozen=True, slots=True)
class Observation:
    """A scan and how old it is when it is handed over, with what policy makes of it.

    `age_s` counts from the scan's start on a monotonic clock, so no two machines' clocks are ever
    compared. `in_use` and `unknown` hold the UUIDs judged so; the ledger excludes both.
    """

    scan: Scan
    age_s: float
    in_use: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()


class Ledger(Protocol):
    """The cluster's reservations; every operation is atomic, and idempotent per owner.

    All raise `StoreError` when the ledger cannot be reached; whether the operation took place is
    then unknown, and repeating it is safe.
    """

    def reserve_count(self, claim: Claim, count: int, observation: Observation) -> Granted | Short:
        """Grant `count` GPUs of the scan's node, the least recently released first, or none."""
        ...

    def reserve_given(
        self, claim: Claim, gpus: Sequence[str], observation: Observation
    ) -> Granted | Blocked:
        """Grant exactly these GPUs (UUIDs) of the scan's node, or none."""
        ...

    def release(self, node: str, owner: str, reason: str, gpus: Sequence[str] = ()) -> list[str]:
        """Release what the owner holds on the node (of `gpus`, if any are named).

        Returns the UUIDs released; none when the owner holds nothing, which is no error.
        """
        ...

    def publish_scan(self, observation: Observation) -> None:
        """Store the node's scan for everyone to read, and list the node."""
        ...

    def look(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        """Read the given nodes, or all that ever published, sorted by name."""
        ...
