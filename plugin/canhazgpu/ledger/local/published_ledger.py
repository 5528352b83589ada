"""The ledger of people's commands on a node: the store's, checked against what the node publishes.

While the store was away, the node's hooks granted GPUs that the store may not know yet. A GPU that
a job of this node holds is shown as reserved, and is granted to nobody. What the node published is
read again after each grant: a hook may have granted the same GPU meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from canhazgpu.ledger.co_holders import holder_of
from canhazgpu.ledger.local.book.book import with_book_jobs
from canhazgpu.ledger.local.book.published_book import PublishedBook
from canhazgpu.ledger.local.delegating_ledger import DelegatingLedger
from canhazgpu.ledger.port import JOB_GRANT_OPTIONS, GrantOptions, Ledger, Observation
from canhazgpu.ledger.release_reasons import HELD_BY_NODES_JOB
from canhazgpu.ledger.values import (
    BlockedGpu,
    Claim,
    GrantedGpus,
    NodeView,
    QueuePosition,
    Reservation,
    TooFewGpus,
)

T = TypeVar("T")


class PublishedLedger(DelegatingLedger):
    """The store's ledger, checked against what `published` reads."""

    def __init__(
        self, node: str, store: Ledger, published: Callable[[], PublishedBook | None]
    ) -> None:
        self._store = store
        self._node = node
        self._published = published

    def ask_store(self, ask: Callable[[Ledger], T]) -> T:
        """See `DelegatingLedger.ask_store`."""
        return ask(self._store)

    def reserve_count(
        self,
        claim: Claim,
        count: int,
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | TooFewGpus | QueuePosition:
        """See `Ledger.reserve_count`."""
        if held := self._held_by_jobs(claim):
            candidates = options.candidates
            if candidates is None:
                candidates = frozenset(one.uuid for one in observation.scan.gpus)
            options = replace(options, candidates=candidates - held.keys())
        answer = super().reserve_count(claim, count, observation, options)
        if isinstance(answer, GrantedGpus) and self._give_back_if_held(claim, answer):
            # The next attempt chooses other GPUs.
            return TooFewGpus(count, count - 1, 0, 0, 0, stale=1)
        return answer

    def reserve_given(
        self,
        claim: Claim,
        gpus: Sequence[str],
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | BlockedGpu | QueuePosition:
        """See `Ledger.reserve_given`."""
        held = self._held_by_jobs(claim)
        if blocked := next((held[gpu] for gpu in gpus if gpu in held), None):
            return BlockedGpu(blocked.gpu, "reserved", blocked)
        answer = super().reserve_given(claim, gpus, observation, options)
        if isinstance(answer, GrantedGpus) and (holder := self._give_back_if_held(claim, answer)):
            return BlockedGpu(holder.gpu, "reserved", holder)
        return answer

    def read_nodes(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        """See `Ledger.read_nodes`; this node's jobs are those that the node publishes."""
        views = super().read_nodes(nodes)
        if all(view.node != self._node for view in views):
            return views
        published = self._published()
        if published is None:
            return views
        return [
            with_book_jobs(view, published.book) if view.node == self._node else view
            for view in views
        ]

    def _held_by_jobs(self, claim: Claim) -> Mapping[str, Reservation]:
        published = self._published()
        if published is None:
            return {}
        jobs = published.book.job_reservations()
        return {gpu: one for gpu, one in jobs.items() if not holder_of(one, claim.owner)}

    def _give_back_if_held(self, claim: Claim, answer: GrantedGpus) -> Reservation | None:
        """Give the grant back if a job of the node holds one of its GPUs.

        Returns the reservation of such a GPU, None if the grant stands.
        """
        held = self._held_by_jobs(claim)
        holder = next((held[gpu] for gpu in answer.gpus if gpu in held), None)
        if holder is not None:
            self.release(self._node, claim.owner, HELD_BY_NODES_JOB)
        return holder
