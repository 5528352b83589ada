"""The port `Ledger`: the operations that the core needs of any ledger of reservations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Protocol, TypeVar

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import Scan
from canhazgpu.gpu.usage import ANY_MEMORY_IS_USE, UsagePolicy
from canhazgpu.ledger.grant_answers import (
    BlockedGpu,
    CommitRefusal,
    GrantedGpus,
    QueuePosition,
    TooFewGpus,
)
from canhazgpu.ledger.journal_entries import NumberedEntry, OverruledReservation
from canhazgpu.ledger.usage import UsageRead
from canhazgpu.ledger.user_limits import NO_LIMITS, UserLimits
from canhazgpu.ledger.values import (
    Claim,
    Event,
    FoundNodes,
    NodeCounts,
    NodeHead,
    NodeView,
    Reservation,
    Waiter,
)
from canhazgpu.node.process_id import ProcessId

Counted = TypeVar("Counted")


@dataclass(frozen=True, slots=True)
class Observation:
    """A scan, its age, and what the policies concluded from it.

    `age_s` is the time since the scan began, on a monotonic clock: the clocks of two machines are
    never compared. `in_use` and `unknown` hold UUIDs of GPUs that are not to be granted.
    `unhealthy` maps the UUIDs of unhealthy GPUs to the reason. The ledger quarantines them, and
    lifts a quarantine that was set for health when the scan finds the GPU healthy. A GPU whose
    health the scan does not know keeps its quarantine. `ignored` are the pids of processes that
    do not count as use. `covered` maps GPUs in use to the owners whose use that is: a share of such
    a GPU is granted while all of them still hold it. `is_complete`: an administrator said that the
    node has no other GPUs; else a scan with fewer than before lacks some. `policy` is the one that
    found the use. `partitions` are the scheduler's partitions of the node, None where they are not
    known; those that the ledger has then stay.
    """

    scan: Scan
    age_s: float
    in_use: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    unhealthy: Mapping[str, str] = field(default_factory=dict)
    ignored: frozenset[int] = frozenset()
    covered: Mapping[str, frozenset[str]] = field(default_factory=dict)
    is_complete: bool = False
    policy: UsagePolicy = ANY_MEMORY_IS_USE
    partitions: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class GrantOptions:
    """How GPUs are granted.

    `queues`: the owner gets GPUs only while nobody is before it in the queue; jobs do not queue.
    `affinity`: the free GPUs that the claim's user released last are granted first, the most
    recently released one before the others. The rest follow, least recently released first.
    `candidates` are the GPUs (UUIDs) among which a count is granted; None: all of the scan.
    `on_intent` is called once nobody else can be granted the GPUs, where that is before the grant
    is confirmed: what takes time can begin then.
    `limits` are those of the claim's user, which the node's book applies where it decides.
    """

    queues: bool = False
    affinity: bool = False
    candidates: frozenset[str] | None = None
    on_intent: Callable[[], None] = lambda: None
    limits: UserLimits = NO_LIMITS


JOB_GRANT_OPTIONS = GrantOptions()


@dataclass(frozen=True, slots=True)
class UnconfirmedGrant:
    """A grant that a node's book has opened, for the store to confirm.

    `number` is the grant's number in the journal with the token `journal`. The node has settled
    every grant up to the number `settled_through`. `entries` are those that the store may lack.
    """

    number: int
    settled_through: int
    claim: Claim
    gpus: tuple[str, ...]
    journal: str
    entries: tuple[NumberedEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class GrantSettled:
    """The grant's number was settled before: nothing was granted, and will not be under it.

    Every number up to `through` is settled.
    """

    through: int


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What the store answers to an `UnconfirmedGrant`; an `outcome` of None is a grant.

    `overruled` is what `Ledger.record_entries` returns for the entries.
    """

    outcome: BlockedGpu | GrantSettled | None
    overruled: tuple[OverruledReservation, ...] = ()


class Ledger(Protocol):
    """The cluster's reservations; every operation is atomic, and idempotent per owner.

    Every operation raises `StoreError` when the store cannot be reached. It is then unknown
    whether the operation took place; repeating it is safe.
    """

    def reserve_count(
        self,
        claim: Claim,
        count: int,
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | TooFewGpus | QueuePosition:
        """Grant `count` GPUs of the scan's node, the least recently released first, or none.

        A reservation that has expired counts as released at its `expires_at`. A grant removes the
        owner from the queue. `TooFewGpus` counts the candidates alone.
        """
        ...

    def reserve_given(
        self,
        claim: Claim,
        gpus: Sequence[str],
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | BlockedGpu | QueuePosition:
        """Grant exactly these GPUs (UUIDs) of the scan's node, or none; see `reserve_count`.

        A claim with a share is granted GPUs that others hold by shares of the same kind, and is
        refused those that one owner holds alone. `released_at` of a shared GPU is the time when its
        last owner released it.
        """
        ...

    def commit(self, owner: str) -> CommitRefusal | None:
        """Make the last grant to the owner final, after a second scan.

        Returns why it does not stand; it is undone then. A ledger whose grants are final at once
        returns None.
        """
        ...

    def confirm(self, node: str, grant: UnconfirmedGrant, observation: Observation) -> Confirmed:
        """Record the entries, then make the grant that the node's book has opened.

        A number has one answer, however often and late it is asked. After a refusal, and after an
        entry that releases the grant of this number, it is refused.
        """
        ...

    def release(
        self, node: str, owner: str, reason: str, gpus: Sequence[str] = (), by: str = ""
    ) -> list[str]:
        """Release the owner's GPUs on the node; only those in `gpus`, unless it is empty.

        Returns the released UUIDs. It is no error if the owner holds nothing. `by` names who
        released them; it is empty for the owner. Where the reason says that the owner never used
        the GPUs (`release_reasons`), their release times stay.
        """
        ...

    def renew(
        self, node: str, owner: str, processes: Sequence[ProcessId] | None = None
    ) -> list[str]:
        """Record a heartbeat of the owner, and replace its processes if `processes` has any.

        Returns the UUIDs that the owner holds; an empty list means that the reservation is lost.
        """
        ...

    def extend(
        self,
        node: str,
        owner: str,
        duration_s: float,
        gpus: Sequence[str] = (),
        longest_s: float = 0.0,
    ) -> list[Reservation]:
        """Move the end of the owner's timed reservations by `duration_s`.

        Only those of `gpus`, unless it is empty. Returns the extended reservations; an empty list
        if the owner has no reservation that expires. Raises `LimitError`, and extends none, where
        one would end later than `longest_s` seconds from now; 0 is no limit.
        """
        ...

    def join_queue(self, node: str, waiter: Waiter) -> int:
        """Join the end of the node's queue, or record a heartbeat there; returns the position."""
        ...

    def leave_queue(self, node: str, owners: Sequence[str], reason: str) -> None:
        """Remove these owners from the queue; it is no error if one is not in it."""
        ...

    def mirror_queue(self, node: str, waiters: Sequence[Waiter], reason: str) -> None:
        """Show the queue that the node keeps itself, and record a heartbeat of all in it.

        Earlier mirrored waiters that are not among them have left for the `reason`. Waiters who
        joined by `join_queue` alone stay.
        """
        ...

    def wait_for_event(self, node: str, after: str, timeout_s: float) -> str:
        """Wait for an event of the node that is newer than `after`, at most `timeout_s`.

        `after` is the id of an event. Returns the id of the node's last event: `after` itself if
        there was none in time. With `after` "" returns at once.
        """
        ...

    def quarantine(self, node: str, gpu: str, reason: str, by: str) -> bool:
        """Exclude the GPU from grants; its present owner keeps it.

        Returns False if it was quarantined already.
        """
        ...

    def unquarantine(self, node: str, gpu: str, by: str) -> bool:
        """Lift the quarantine; returns False if there was none. A later scan may set it again."""
        ...

    def forget_node(self, node: str) -> bool:
        """Remove the node and everything recorded about it, its history too.

        Returns False if the ledger does not know the node. Raises `InputError` while one of its
        GPUs is reserved.
        """
        ...

    def history(self, node: str, since: float) -> list[Event]:
        """Return the node's events from `since` (seconds since the epoch), the oldest first."""
        ...

    def recent_events(self, since_s: float) -> tuple[float, dict[str, list[Event]]]:
        """Return the time, and each listed node's events of the last `since_s` seconds by its name.

        They are those of `history`; together they cost little where each node has few.
        """
        ...

    def record_entries(
        self, node: str, journal: str, entries: Sequence[NumberedEntry]
    ) -> list[OverruledReservation]:
        """Record the entries of the node's journal, in their order.

        `journal` is the journal's token. An entry of a journal is applied once, however often it
        is sent; entries without a journal ("") are applied each time. If another owner holds a
        GPU of a grant, the grant wins, unless it `yields`: a job runs on that GPU. Returns the
        reservations that were removed for that reason.
        """
        ...

    def publish_scan(self, observation: Observation, alive: Collection[str] = ()) -> None:
        """Store the node's scan for everybody to read, and list the node.

        Also records a heartbeat for all reservations of the owners `alive` on the node.
        """
        ...

    def find_job(self, job_id: str) -> FoundNodes:
        """Return the nodes that may tell of the job with this number, of any cluster."""
        ...

    def find_owner(self, owner: str) -> FoundNodes:
        """Return the nodes where a run or a reservation by hand may have been, by its owner.

        The `unindexed` ones are hinted at, too: who needs one node finds it there most often.
        """
        ...

    def find_user(self, uid: int, days: int) -> FoundNodes:
        """Return the nodes where the user may have held, used or waited for GPUs.

        That is today (UTC) and the `days` before it.
        """
        ...

    def name_jobs(self, node: str, named: Mapping[str, Mapping[str, object]]) -> int:
        """Add ``job_name`` and ``ends_at`` to the reservations of these owners that lack a name.

        Returns how many reservations were changed.
        """
        ...

    def keep_indexes(self, node: str) -> None:
        """Bring the node's entries in the indexes up to date.

        That of an earlier release is taken over in portions, one each time.
        """
        ...

    def history_on(self, node: str, days: Collection[int]) -> list[Event]:
        """Return what the node told on these days (UTC, since 1970), the oldest event first."""
        ...

    def node_names(self) -> list[str]:
        """Return the names of all listed nodes, sorted."""
        ...

    def read_usage(self, days: int, nodes: Sequence[str] | None = None) -> UsageRead:
        """Return what these nodes, or all, have counted: before the last days, and in all.

        The last days are the present one (UTC, by the store's clock) and `days` before it.
        """
        ...

    def read_nodes(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        """Return the given nodes, or all listed nodes, sorted by name."""
        ...

    def read_node_heads(self, nodes: Sequence[str] | None = None) -> Iterator[NodeHead]:
        """Yield what summaries of the nodes are made from, sorted by name.

        A head that is given has every change of reservations, quarantines and the queue; its scan
        is as in `read_node_pages`.
        """
        ...

    def read_counts_or_heads(
        self,
        count: Callable[[NodeCounts], Counted | None],
        nodes: Sequence[str] | None = None,
    ) -> Iterator[Counted | NodeHead]:
        """Yield what `count` makes of the counts of these nodes, or of all, in any order.

        Of a node that has none, or where it makes None of them, yield the head: see
        `read_node_heads`. What is so of heads is so of counts.
        """
        ...

    def read_queues(self) -> tuple[float, dict[str, tuple[Waiter, ...]]]:
        """Return the time, and the queue of each listed node by its name, the next one first."""
        ...

    def read_node_pages(
        self, nodes: Sequence[str] | None = None, *, brief_above: int | None = None
    ) -> Iterator[list[NodeView]]:
        """Yield the same nodes as `read_nodes`, in the same order, some at a time.

        Where there are more than `brief_above`, a view may be brief (`NodeView.is_brief`). It has
        every change of reservations, quarantines and the queue. Of a node that a former release
        serves now, its scan may be up to ten minutes older than the last one.
        """
        ...
