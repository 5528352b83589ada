"""The ledger of people's commands on a node: the store's, checked against what the node publishes.

While the store was away, the node's hooks granted GPUs that the store may not know yet. A GPU that
a job of this node holds is shown as reserved, and is granted to nobody. What the node published is
read again after each grant: a hook may have granted the same GPU meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from canhazgpu.ledger.co_holders import holder_of
from canhazgpu.ledger.local.book import with_book_jobs
from canhazgpu.ledger.local.delegating_ledger import GrantCheckedLedger
from canhazgpu.ledger.local.published_book import PublishedBook
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


class PublishedLedger(GrantCheckedLedger):
    """The store's ledger, checked against what `published` reads."""

    def __init__(
        self, node: str, store: Ledger, published: Callable[[], PublishedBook | None]
    ) -> None:
        super().__init__(store)
        self._node = node
        self._published = published

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
        return super().reserve_count(claim, count, observation, options)

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
        return super().reserve_given(claim, gpus, observation, options)

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

    def give_back_if_held(self, claim: Claim, answer: GrantedGpus) -> Reservation | None:
        """See `GrantCheckedLedger.give_back_if_held`."""
        held = self._held_by_jobs(claim)
        holder = next((held[gpu] for gpu in answer.gpus if gpu in held), None)
        if holder is not None:
            self.release(self._node, claim.owner, HELD_BY_NODES_JOB)
        return holder
