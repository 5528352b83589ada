"""What the core needs of a ledger of reservations, whatever keeps it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from canhazgpu.gpu.scan import Scan
from canhazgpu.ledger.journal_entries import NumberedEntry, OverruledReservation
from canhazgpu.ledger.values import (
    BlockedGpu,
    Claim,
    Event,
    GrantedGpus,
    NodeView,
    QueuePosition,
    Reservation,
    TooFewGpus,
    Waiter,
)
from canhazgpu.node.process_id import ProcessId


@dataclass(frozen=True, slots=True)
class Observation:
    """A scan and how old it is when it is handed over, with what policy makes of it.

    `age_s` counts from the scan's start on a monotonic clock, so no two machines' clocks are ever
    compared. `in_use` and `unknown` hold the UUIDs judged so; the ledger excludes both.
    `unhealthy` holds the UUIDs that health quarantines, each with the reason; the ledger
    quarantines those it is told of, and lifts what health had quarantined and the scan finds
    healthy again. A GPU that the scan could not judge keeps the quarantine it has. `ignored` are
    the pids of processes that do not count as use.
    """

    scan: Scan
    age_s: float
    in_use: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    unhealthy: Mapping[str, str] = field(default_factory=dict)
    ignored: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class GrantOptions:
    """How GPUs are granted.

    `queues`: the owner waits its turn: it gets GPUs only while nobody waits before it; a job does
    not. `affinity`: of the free GPUs, those that the claim's user released last come first, the
    last one foremost; the others follow, least recently released first.
    """

    queues: bool = False
    affinity: bool = False


JOB_GRANT_OPTIONS = GrantOptions()


class Ledger(Protocol):
    """The cluster's reservations; every operation is atomic, and idempotent per owner.

    All raise `StoreError` when the ledger cannot be reached; whether the operation took place is
    then unknown, and repeating it is safe.
    """

    def reserve_count(
        self,
        claim: Claim,
        count: int,
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | TooFewGpus | QueuePosition:
        """Grant `count` GPUs of the scan's node, the least recently released first, or none.

        What has expired counts as released when it expired. A grant takes the owner out of the
        queue.
        """
        ...

    def reserve_given(
        self,
        claim: Claim,
        gpus: Sequence[str],
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | BlockedGpu | QueuePosition:
        """Grant exactly these GPUs (UUIDs) of the scan's node, or none; see `reserve_count`."""
        ...

    def release(
        self, node: str, owner: str, reason: str, gpus: Sequence[str] = (), by: str = ""
    ) -> list[str]:
        """Release what the owner holds on the node (of `gpus`, if any are named).

        Returns the UUIDs released; none when the owner holds nothing, which is no error. `by`
        names who did it, where that was not the owner.
        """
        ...

    def renew(
        self, node: str, owner: str, processes: Sequence[ProcessId] | None = None
    ) -> list[str]:
        """Give a sign of life of the owner, and replace its processes where any are given.

        Returns the UUIDs that it holds; none says that the reservation is lost.
        """
        ...

    def extend(
        self, node: str, owner: str, duration_s: float, gpus: Sequence[str] = ()
    ) -> list[Reservation]:
        """Let what the owner holds for a time (of `gpus`, if any) last that much longer.

        Counted from its present end. Returns the reservations as they are now; none where the
        owner holds nothing that expires.
        """
        ...

    def join_queue(self, node: str, waiter: Waiter) -> int:
        """Join the node's queue at its end, or give a sign of life in it; returns the position."""
        ...

    def leave_queue(self, node: str, owners: Sequence[str], reason: str) -> None:
        """Take these owners out of the queue; one that is not in it is no error."""
        ...

    def wait_for_event(self, node: str, after: str, timeout_s: float) -> str:
        """Wait until something happens on the node after the event `after`, or the time is over.

        "" means now: returns at once with the id of the node's last event. Returns the id of the
        last event, which is `after` again where nothing happened.
        """
        ...

    def quarantine(self, node: str, gpu: str, reason: str, by: str) -> bool:
        """Hold the GPU back from grants; whoever has it keeps it. False where it was already."""
        ...

    def unquarantine(self, node: str, gpu: str, by: str) -> bool:
        """Lift the quarantine; False where there was none. Health may set it again."""
        ...

    def forget_node(self, node: str) -> bool:
        """Remove the node with all that is known of it but its history.

        False where the ledger does not know it. Raises `InputError` while a GPU of it is reserved.
        """
        ...

    def history(self, node: str, since: float) -> list[Event]:
        """Return the node's events from `since` (seconds since the epoch), the oldest first."""
        ...

    def record_entries(
        self, node: str, journal: str, entries: Sequence[NumberedEntry]
    ) -> list[OverruledReservation]:
        """Take over what the node did or found on its own, in its order.

        Each entry of a journal, named by its token, counts once, however often it is told; of no
        journal ("") each time. Where a grant meets another owner the node is right: a job runs
        there. Returns what other owners lost by that.
        """
        ...

    def publish_scan(self, observation: Observation, alive: Collection[str] = ()) -> None:
        """Store the node's scan for everyone to read, and list the node.

        With it comes a sign of life of the owners `alive`, of whatever they hold there.
        """
        ...

    def read_nodes(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        """Read the given nodes, or all that ever published, sorted by name."""
        ...
