"""Ledgers in front of the store's ledger: what they do not do in another way, the store does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from canhazgpu.ledger.grant_answers import (
    BlockedGpu,
    CommitRefusal,
    GrantedGpus,
    QueuePosition,
    TooFewGpus,
)
from canhazgpu.ledger.journal_entries import NumberedEntry, OverruledReservation
from canhazgpu.ledger.port import (
    JOB_GRANT_OPTIONS,
    Confirmed,
    Counted,
    GrantOptions,
    Ledger,
    Observation,
    UnconfirmedGrant,
)
from canhazgpu.ledger.usage import UsageRead
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

T = TypeVar("T")


class DelegatingLedger(ABC):
    """A `Ledger` that passes every operation to the store's ledger."""

    @abstractmethod
    def ask_store(self, ask: Callable[[Ledger], T]) -> T:
        """Return the answer of the store's ledger; raises `StoreError` if the store fails."""

    def reserve_count(
        self,
        claim: Claim,
        count: int,
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | TooFewGpus | QueuePosition:
        """See `Ledger.reserve_count`."""
        return self.ask_store(lambda store: store.reserve_count(claim, count, observation, options))

    def reserve_given(
        self,
        claim: Claim,
        gpus: Sequence[str],
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | BlockedGpu | QueuePosition:
        """See `Ledger.reserve_given`."""
        return self.ask_store(lambda store: store.reserve_given(claim, gpus, observation, options))

    def commit(self, owner: str) -> CommitRefusal | None:
        """See `Ledger.commit`."""
        return self.ask_store(lambda store: store.commit(owner))

    def confirm(self, node: str, grant: UnconfirmedGrant, observation: Observation) -> Confirmed:
        """See `Ledger.confirm`."""
        return self.ask_store(lambda store: store.confirm(node, grant, observation))

    def release(
        self, node: str, owner: str, reason: str, gpus: Sequence[str] = (), by: str = ""
    ) -> list[str]:
        """See `Ledger.release`."""
        return self.ask_store(lambda store: store.release(node, owner, reason, gpus, by))

    def renew(
        self, node: str, owner: str, processes: Sequence[ProcessId] | None = None
    ) -> list[str]:
        """See `Ledger.renew`."""
        return self.ask_store(lambda store: store.renew(node, owner, processes))

    def extend(
        self,
        node: str,
        owner: str,
        duration_s: float,
        gpus: Sequence[str] = (),
        longest_s: float = 0.0,
    ) -> list[Reservation]:
        """See `Ledger.extend`."""
        return self.ask_store(lambda store: store.extend(node, owner, duration_s, gpus, longest_s))

    def join_queue(self, node: str, waiter: Waiter) -> int:
        """See `Ledger.join_queue`."""
        return self.ask_store(lambda store: store.join_queue(node, waiter))

    def leave_queue(self, node: str, owners: Sequence[str], reason: str) -> None:
        """See `Ledger.leave_queue`."""
        self.ask_store(lambda store: store.leave_queue(node, owners, reason))

    def mirror_queue(self, node: str, waiters: Sequence[Waiter], reason: str) -> None:
        """See `Ledger.mirror_queue`."""
        self.ask_store(lambda store: store.mirror_queue(node, waiters, reason))

    def wait_for_event(self, node: str, after: str, timeout_s: float) -> str:
        """See `Ledger.wait_for_event`."""
        return self.ask_store(lambda store: store.wait_for_event(node, after, timeout_s))

    def quarantine(self, node: str, gpu: str, reason: str, by: str) -> bool:
        """See `Ledger.quarantine`."""
        return self.ask_store(lambda store: store.quarantine(node, gpu, reason, by))

    def unquarantine(self, node: str, gpu: str, by: str) -> bool:
        """See `Ledger.unquarantine`."""
        return self.ask_store(lambda store: store.unquarantine(node, gpu, by))

    def forget_node(self, node: str) -> bool:
        """See `Ledger.forget_node`."""
        return self.ask_store(lambda store: store.forget_node(node))

    def history(self, node: str, since: float) -> list[Event]:
        """See `Ledger.history`."""
        return self.ask_store(lambda store: store.history(node, since))

    def recent_events(self, since_s: float) -> tuple[float, dict[str, list[Event]]]:
        """See `Ledger.recent_events`."""
        return self.ask_store(lambda store: store.recent_events(since_s))

    def record_entries(
        self, node: str, journal: str, entries: Sequence[NumberedEntry]
    ) -> list[OverruledReservation]:
        """See `Ledger.record_entries`."""
        return self.ask_store(lambda store: store.record_entries(node, journal, entries))

    def publish_scan(self, observation: Observation, alive: Collection[str] = ()) -> None:
        """See `Ledger.publish_scan`."""
        self.ask_store(lambda store: store.publish_scan(observation, alive))

    def find_job(self, job_id: str) -> FoundNodes:
        """See `Ledger.find_job`."""
        return self.ask_store(lambda store: store.find_job(job_id))

    def find_owner(self, owner: str) -> FoundNodes:
        """See `Ledger.find_owner`."""
        return self.ask_store(lambda store: store.find_owner(owner))

    def find_user(self, uid: int, days: int) -> FoundNodes:
        """See `Ledger.find_user`."""
        return self.ask_store(lambda store: store.find_user(uid, days))

    def name_jobs(self, node: str, named: Mapping[str, Mapping[str, object]]) -> int:
        """See `Ledger.name_jobs`."""
        return self.ask_store(lambda store: store.name_jobs(node, named))

    def keep_indexes(self, node: str) -> None:
        """See `Ledger.keep_indexes`."""
        self.ask_store(lambda store: store.keep_indexes(node))

    def history_on(self, node: str, days: Collection[int]) -> list[Event]:
        """See `Ledger.history_on`."""
        return self.ask_store(lambda store: store.history_on(node, days))

    def node_names(self) -> list[str]:
        """See `Ledger.node_names`."""
        return self.ask_store(lambda store: store.node_names())

    def read_usage(self, days: int, nodes: Sequence[str] | None = None) -> UsageRead:
        """See `Ledger.read_usage`."""
        return self.ask_store(lambda store: store.read_usage(days, nodes))

    def read_nodes(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        """See `Ledger.read_nodes`."""
        return self.ask_store(lambda store: store.read_nodes(nodes))

    def read_node_heads(self, nodes: Sequence[str] | None = None) -> Iterator[NodeHead]:
        """See `Ledger.read_node_heads`; every node is read in full."""
        return (NodeHead(view.node, view.read_at) for view in self.read_nodes(nodes))

    def read_counts_or_heads(
        self,
        count: Callable[[NodeCounts], Counted | None],
        nodes: Sequence[str] | None = None,
    ) -> Iterator[Counted | NodeHead]:
        """See `Ledger.read_counts_or_heads`; every node is read in full."""
        return self.read_node_heads(nodes)

    def read_queues(self) -> tuple[float, dict[str, tuple[Waiter, ...]]]:
        """See `Ledger.read_queues`; as the store has them."""
        return self.ask_store(lambda store: store.read_queues())

    def read_node_pages(
        self, nodes: Sequence[str] | None = None, *, brief_above: int | None = None
    ) -> Iterator[list[NodeView]]:
        """See `Ledger.read_node_pages`; all of them are read before the first is given."""
        yield self.read_nodes(nodes)
