"""The ledger's values: owners, claims, reservations, and the answers to an operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from canhazgpu.gpu.scan import Scan
from canhazgpu.node.process_id import ProcessId


@dataclass(frozen=True, slots=True)
class JobOwner:
    """One attempt of a scheduler's job.

    The attempt (Slurm's restart count) fences the token: a requeued job keeps its id, and the late
    end of its first attempt must not release what its second one holds.
    """

    cluster: str
    job_id: str
    attempt: int

    @property
    def token(self) -> str:
        """The owner as the ledger knows it, ``job:CLUSTER:ID:ATTEMPT``."""
        return f"{self._job}{self.attempt}"

    @property
    def _job(self) -> str:
        return f"job:{self.cluster}:{self.job_id}:"

    def covers(self, token: str) -> bool:
        """Tell whether the token is this job's, of this attempt or an earlier one."""
        attempt = token.removeprefix(self._job)
        return attempt != token and attempt.isdecimal() and int(attempt) <= self.attempt


RUN = "run"
MANUAL = "manual"
"""What the TYPE column calls a running command's reservation, and a person's for a time."""


def new_owner_token(type_: str) -> str:
    """Return a token no other owner ever had, ``run:…`` or ``manual:…``.

    Not the user's name: one run's late end must not free the same user's next one.
    """
    from secrets import token_hex  # noqa: PLC0415 - slow to import, and few need a new owner

    return f"{type_}:{token_hex(8)}"


@dataclass(frozen=True, slots=True)
class Claim:
    """For whom GPUs are reserved, as recorded with each of them.

    `type` is what the TYPE column shows. `ends_at` is in seconds since the epoch, None when the
    end is not known. `boot_id` is the node's boot during which the claim was made. `duration_s`
    bounds a person's reservation: the ledger adds it to its own clock. `processes` keep a run's
    reservation alive as long as one of them lives; they are pids of the namespace
    `pid_namespace` (its inode).
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


@dataclass(frozen=True, slots=True)
class Reservation:
    """A GPU granted to an owner; times are seconds since the epoch of the store's clock.

    `expires_at` is the end of a reservation for a time, `renewed_at` the owner's last sign of
    life; None where there is none. `idle_s` is for how long scans found the GPU unused.
    """

    gpu: str
    claim: Claim
    granted_at: float
    expires_at: float | None = None
    renewed_at: float | None = None
    idle_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Waiter:
    """Somebody who waits for GPUs of a node, in the queue under the owner it will be.

    `count` GPUs are wanted, or exactly the UUIDs in `gpus`. Without a sign of life for `lease_s`
    the waiter has left. Times as in `Reservation`; `since` and `renewed_at` are the ledger's to
    set.
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


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A GPU held back from grants since `since` (seconds since the epoch), and why.

    `by` is who did: ``health`` for one that scans set and lift, else the administrator's name.
    """

    gpu: str
    reason: str
    since: float
    by: str = "health"


@dataclass(frozen=True, slots=True)
class GrantedGpus:
    """All that was asked for; `repeated` where the owner held these GPUs already."""

    gpus: tuple[str, ...]
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class TooFewGpus:
    """Fewer clean GPUs than asked for; nothing was granted.

    The GPUs that were not free: `reserved`, in use without reservation (`unreserved`), held back
    (`quarantined`), those whose state changed after the scan began (`stale`), and those that
    could not be read (`unknown`).
    """

    requested: int
    available: int
    reserved: int
    unreserved: int
    quarantined: int
    stale: int
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class BlockedGpu:
    """A GPU asked for by name cannot be granted; nothing was granted.

    `why` is ``reserved``, ``unreserved``, ``quarantined``, ``unknown`` or ``stale``; `holder` is
    the reservation in the way, where that is what is in the way.
    """

    gpu: str
    why: str
    holder: Reservation | None = None


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """Others wait whose turn is before; nothing was granted. `position` counts from 1."""

    position: int


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a node's history.

    `kind` is ``grant``, ``release``, ``extend``, ``quarantine``, ``unquarantine``, ``wait`` or
    ``leave``; ``prolog``, ``epilog`` and ``health`` tell what a hook saw and decided, in `reason`
    and `facts`. `gpu` is empty where the event concerns none; `reason` says why, `by` who did it
    where that was not the owner. `idle_s` is, of a release, for how long scans found the GPU
    reserved and unused.
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
    """All the ledger knows of one node, read at `read_at` (seconds, the store's clock).

    `scan` is the last published one and `scanned_at` its time on the store's clock; both are None
    for a node that never published.
    """

    node: str
    read_at: float
    scan: Scan | None
    scanned_at: float | None
    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    released_at: Mapping[str, float] = field(default_factory=dict)
    quarantines: Mapping[str, Quarantine] = field(default_factory=dict)
    queue: tuple[Waiter, ...] = ()


def claim_to_dict(claim: Claim) -> dict[str, Any]:
    """Return the claim's known fields."""
    return {name: value for name, value in asdict(claim).items() if value not in (None, ())}


RECORD_ERRORS = (ValueError, TypeError, KeyError, OverflowError, RecursionError)
"""What reading a record raises that somebody else, or another release, wrote."""
