"""The ledger's values: claims, reservations, waiters, quarantines, events, and views of a node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, field, fields, replace
from typing import Any

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import Scan, whole_gpus
from canhazgpu.node.process_id import ProcessId

MAX_NAME = 200
"""Characters of a name, note or reason that are kept: a table has one in each row. A job's name
has up to 128 KiB, as its user likes."""


def bounded_name(text: str) -> str:
    """Return the text, of one that is too long the beginning."""
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 1]}…"


@dataclass(frozen=True, slots=True)
class Share:
    """The part of each of its GPUs that a job has, by the scheduler's own count.

    `kind` is the scheduler's word, ``shard`` or ``mps``. `amount` of `total` units of a GPU are the
    job's; a `total` of 0 means that it is not known. Only shares of one kind are together on a GPU.
    """

    kind: str
    amount: int
    total: int = 0

    @property
    def fraction(self) -> float:
        """The part of the GPU, from 0 to 1; 1 where the total is not known."""
        return min(self.amount / self.total, 1.0) if self.total > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Claim:
    """For whom GPUs are reserved; recorded with each GPU.

    `type` is what the TYPE column shows. `ends_at` is in seconds since the epoch, None if the end
    is not known. `boot_id` is the boot of the node in which the claim was made. `duration_s`
    limits a person's reservation: the ledger adds it to the store's time. A run's reservation
    lasts as long as one of its `processes` is alive; their pids belong to the pid namespace with
    the inode `pid_namespace`. A claim with a `share` leaves the rest of its GPUs to other jobs.
    Of a job on several nodes the claims `follows` but that of its first node: a report counts the
    job there.
    """

    owner: str
    type: str
    user: str
    uid: int | None = None
    job_id: str | None = None
    job_name: str | None = None
    ends_at: float | None = None
    boot_id: str | None = None
    note: str | None = None
    duration_s: float | None = None
    processes: tuple[ProcessId, ...] = ()
    pid_namespace: int | None = None
    share: Share | None = None
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Reservation:
    """A GPU granted to an owner; times are seconds since the epoch by the store's clock.

    `expires_at` is the end of a timed reservation, None without one. `renewed_at` is the time of
    the owner's last heartbeat, None without one. `idle_s` is for how long scans found the GPU
    unused. `co_holders` are the reservations of the other jobs that share the GPU, in the order of
    their grants; they have none themselves.
    """

    gpu: str
    claim: Claim
    granted_at: float
    expires_at: float | None = None
    renewed_at: float | None = None
    idle_s: float = 0.0
    co_holders: tuple[Reservation, ...] = ()

    @property
    def holders(self) -> tuple[Reservation, ...]:
        """The reservation of each owner of the GPU, the earliest first."""
        return (replace(self, co_holders=()), *self.co_holders) if self.co_holders else (self,)


@dataclass(frozen=True, slots=True)
class Waiter:
    """Somebody who waits for GPUs of a node; `owner` is the owner of the later grant.

    The waiter wants `count` GPUs, MIG instances of the `profile` if it names one, or exactly the
    UUIDs in `gpus`. It leaves the queue when it
    gives no heartbeat for `lease_s`. The ledger sets `since` and `renewed_at`, which are times
    as in `Reservation`.
    """

    owner: str
    user: str
    uid: int | None
    count: int
    gpus: tuple[str, ...] = ()
    boot_id: str | None = None
    processes: tuple[ProcessId, ...] = ()
    pid_namespace: int | None = None
    lease_s: float = 60.0
    since: float = 0.0
    renewed_at: float = 0.0
    profile: str = ""

    @property
    def count_text(self) -> str:
        """What it wants by number; see `wanted_text`."""
        return wanted_text(self.count, self.profile)


def wanted_text(count: int, profile: str) -> str:
    """Return ``1 GPU``, with a MIG profile ``2 MIG instances 1g.10gb``."""
    plural = "" if count == 1 else "s"
    return f"{count} " + (f"MIG instance{plural} {profile}" if profile else f"GPU{plural}")


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A GPU excluded from grants, and the reason; `since` is in seconds since the epoch.

    `by` is ``health`` for a quarantine that scans set and lift, else the administrator's name.
    """

    gpu: str
    reason: str
    since: float
    by: str = "health"


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a node's history.

    `kind` is ``grant``, ``release``, ``extend``, ``quarantine``, ``unquarantine``, ``wait`` or
    ``leave``; or it is ``prolog``, ``epilog`` or ``health``: then `reason` and `facts` describe
    what a hook saw and decided. `gpu` is empty if the event concerns no GPU. `by` names who
    caused the event; it is empty for the owner. For a release, `idle_s` is for how long scans
    found the GPU reserved and unused.
    """

    id: str
    at: float
    kind: str
    gpu: str = ""
    claim: Claim | None = None
    granted_at: float | None = None
    reason: str = ""
    by: str = ""
    idle_s: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeView:
    """Everything the ledger records about one node, read at `read_at`.

    Times are seconds since the epoch by the store's clock. `scan` is the last published scan and
    `scanned_at` its time; both are None if the node never published one. `most_gpus` are the GPUs
    of the largest scan that was published, UUID to index; it counts no MIG instances. `partitions`
    are the scheduler's partitions of the node as it published them at `partitions_at`, None where
    it never did. A view that `is_brief` suffices for each GPU's state. Its scan lacks health and
    utilization, heartbeats and idle times may be older, and `released_at` has only GPUs that
    nobody holds.
    """

    node: str
    read_at: float
    scan: Scan | None
    scanned_at: float | None
    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    released_at: Mapping[str, float] = field(default_factory=dict)
    quarantines: Mapping[str, Quarantine] = field(default_factory=dict)
    queue: tuple[Waiter, ...] = ()
    most_gpus: Mapping[str, int] = field(default_factory=dict)
    partitions: tuple[str, ...] | None = None
    partitions_at: float | None = None
    is_brief: bool = False

    @property
    def known_gpus(self) -> Mapping[str, int]:
        """The GPUs that the node had, UUID to index; those of the last scan for older records."""
        return self.most_gpus or (whole_gpus(self.scan) if self.scan else {})

    def all_reservations(self) -> Iterator[Reservation]:
        """Yield the reservation of each owner of each GPU, those of co-holders too."""
        for one in self.reservations.values():
            yield from one.holders

    @property
    def is_known(self) -> bool:
        """Whether the ledger knows the node: by a scan, a reservation or a quarantine."""
        return bool(self.scan or self.reservations or self.quarantines)


@dataclass(frozen=True, slots=True)
class NodeCounts:
    """What a plain node's counts say, by ``scripts/at_end/head.lua``; few values are checked."""

    node: str
    read_at: float
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NodeHead:
    """What a node's head says, as ``scripts/at_end/head.lua`` has it; no value in it is checked.

    `content` is None for a node whose head is missing, or older than the node's other records: it
    is to be read in full. `queue` is the node's queue as it is stored.
    """

    node: str
    read_at: float
    content: Mapping[str, Any] | None = None
    queue: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class FoundNodes:
    """Where a job or a user was: days of UTC, counted from 1970-01-01, by node.

    That a node is named does not mean that it was there: its own records say so. Nodes that are
    `unindexed` may have been left out, and have to be read in full.
    """

    days: Mapping[str, frozenset[int]]
    unindexed: tuple[str, ...] = ()

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes to look at."""
        return tuple(sorted({*self.days, *self.unindexed}))


def claim_to_dict(claim: Claim) -> dict[str, Any]:
    """Return the fields of the claim that have a value."""
    found = {name: getattr(claim, name) for name in _CLAIM_FIELDS}
    # Field by field: asdict() copies each value, and takes five times as long.
    found["processes"] = tuple(asdict(one) for one in claim.processes)
    found["share"] = None if claim.share is None else asdict(claim.share)
    return {
        name: value
        for name, value in found.items()
        if value not in (None, ()) and value is not False
    }


_CLAIM_FIELDS = tuple(one.name for one in fields(Claim))


RECORD_ERRORS = (ValueError, TypeError, KeyError, OverflowError, RecursionError)
"""What parsing a record may raise if another program or another release wrote it."""
