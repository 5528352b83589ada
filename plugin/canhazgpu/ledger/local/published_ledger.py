"""The ledger of people's commands on a node: the store's, checked against what the node publishes.

While the store was away, the node granted GPUs that the store may not know yet. A GPU that its book
has given to a job or a person is shown as reserved, and is granted to nobody; what it has released
is not shown. What the node published is read again after each grant: it may have granted the same
GPU meanwhile. A person's reservation that was released in the store counts no more: the book learns
of that later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from canhazgpu.ledger.co_holders import holder_of, select_holders, without_expired
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus, QueuePosition, TooFewGpus
from canhazgpu.ledger.local.book.book import Book, is_job_owner
from canhazgpu.ledger.local.book.book_and_store import with_own_reservations
from canhazgpu.ledger.local.book.disagreement import find_release
from canhazgpu.ledger.local.book.published_book import PublishedBook
from canhazgpu.ledger.local.delegating_ledger import DelegatingLedger
from canhazgpu.ledger.port import JOB_GRANT_OPTIONS, GrantOptions, Ledger, Observation
from canhazgpu.ledger.release_reasons import HELD_BY_NODES_BOOK
from canhazgpu.ledger.values import Claim, NodeView, Reservation

T = TypeVar("T")


class PublishedLedger(DelegatingLedger):
    """The store's ledger, checked against what `published` reads."""

    def __init__(
        self, node: str, store: Ledger, published: Callable[[], PublishedBook | None]
    ) -> None:
        self._store = store
        self._node = node
        self._published = published
        self._released: list[tuple[str, tuple[str, ...]]] = []

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
        if held := self._held_in_book(claim):
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
        held = self._held_in_book(claim)
        if blocked := next((held[gpu] for gpu in gpus if gpu in held), None):
            return BlockedGpu(blocked.gpu, "reserved", blocked)
        answer = super().reserve_given(claim, gpus, observation, options)
        if isinstance(answer, GrantedGpus) and (holder := self._give_back_if_held(claim, answer)):
            return BlockedGpu(holder.gpu, "reserved", holder)
        return answer

    def read_nodes(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        """See `Ledger.read_nodes`; this node has what it publishes."""
        views = super().read_nodes(nodes)
        mine = next((view for view in views if view.node == self._node), None)
        published = None if mine is None else self._published()
        if mine is None or published is None:
            return views
        shown = with_own_reservations(mine, self._in_force(published.book, mine))
        if published.released:
            kept = select_holders(shown.reservations, lambda one: not published.has_released(one))
            shown = replace(shown, reservations=kept)
        return [shown if view is mine else view for view in views]

    def release(
        self, node: str, owner: str, reason: str, gpus: Sequence[str] = (), by: str = ""
    ) -> list[str]:
        """See `Ledger.release`; this process takes what it released as released."""
        if node == self._node:
            self._released.append((owner, tuple(gpus)))
        return super().release(node, owner, reason, gpus, by)

    def _held_in_book(self, claim: Claim) -> Mapping[str, Reservation]:
        """Return what the node's book has given to others."""
        published = self._published()
        if published is None:
            return {}
        book = published.book
        if not all(map(is_job_owner, book.own_owners)):
            (view,) = self._store.read_nodes([self._node])
            book = self._in_force(book, view)
        held = book.own_reservations()
        return {gpu: one for gpu, one in held.items() if not holder_of(one, claim.owner)}

    def _in_force(self, book: Book, view: NodeView) -> Book:
        """Return the book without people's reservations that are over, by this view or history."""
        own = without_expired(book.own_reservations(), view.read_at)
        lost = [
            one
            for held in own.values()
            for one in held.holders
            if not is_job_owner(one.claim.owner)
            and not holder_of(view.reservations.get(one.gpu), one.claim.owner)
        ]
        events = (
            self._store.history(self._node, min(one.granted_at for one in lost)) if lost else []
        )
        over = {
            (one.gpu, one.claim.owner)
            for one in lost
            if self._was_released(one) or find_release(events, one, is_own=True)
        }
        kept = select_holders(own, lambda one: (one.gpu, one.claim.owner) not in over)
        return replace(book, reservations=kept)

    def _was_released(self, one: Reservation) -> bool:
        """Return whether this process has released it; the store may not have known it."""
        return any(
            owner == one.claim.owner and (not gpus or one.gpu in gpus)
            for owner, gpus in self._released
        )

    def _give_back_if_held(self, claim: Claim, answer: GrantedGpus) -> Reservation | None:
        """Give the grant back if the node's book has given one of its GPUs to somebody else.

        Returns the reservation of such a GPU, None if the grant stands.
        """
        held = self._held_in_book(claim)
        holder = next((held[gpu] for gpu in answer.gpus if gpu in held), None)
        if holder is not None:
            self.release(self._node, claim.owner, HELD_BY_NODES_BOOK)
        return holder
