"""Choose GPUs by the book: when it is the claim's turn, and within the limits of its user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from canhazgpu.errors import LimitError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus, QueuePosition, TooFewGpus
from canhazgpu.ledger.local.book.book import Book
from canhazgpu.ledger.local.book.grant_rules import grant_count, grant_given
from canhazgpu.ledger.local.queue.node_queue import NodeQueue
from canhazgpu.ledger.port import GrantOptions, Observation
from canhazgpu.ledger.user_limits import over_limit
from canhazgpu.ledger.values import Claim

Chosen = TypeVar("Chosen", bound=GrantedGpus | TooFewGpus | BlockedGpu)


@dataclass(frozen=True, slots=True)
class GrantChoice:
    """The choice for one claim, made under the book's lock.

    The book that it is given has the open intents of all others: two requests at once do not both
    pass. It raises `LimitError` where the claim's user may not have so many GPUs more, and
    `NodeStateError`.
    """

    queue: NodeQueue
    claim: Claim
    observation: Observation
    options: GrantOptions

    def count(self, book: Book, now: float, count: int) -> GrantedGpus | TooFewGpus | QueuePosition:
        """Choose so many GPUs; see `Ledger.reserve_count`."""
        chosen = grant_count(
            book,
            self.claim,
            count,
            self.observation,
            now,
            candidates=self.options.candidates,
            affinity=self.options.affinity,
        )
        return self._if_allowed(book, chosen, count)

    def given(
        self, book: Book, now: float, gpus: Sequence[str]
    ) -> GrantedGpus | BlockedGpu | QueuePosition:
        """Choose these GPUs; see `Ledger.reserve_given`."""
        chosen = grant_given(book, self.claim, gpus, self.observation, now)
        return self._if_allowed(book, chosen, len({*gpus}))

    def _if_allowed(self, book: Book, chosen: Chosen, count: int) -> Chosen | QueuePosition:
        if isinstance(chosen, GrantedGpus) and chosen.repeated:
            return chosen
        limits = self.options.limits
        if limits.max_gpus:
            held, waiters = book.reservations.values(), self.queue.waiters(book.grant_numbers)
            if why := over_limit(limits, held, waiters, self.claim, count):
                raise LimitError(why)
        if not self.options.queues:
            return chosen
        position = self.queue.position(self.claim.owner, book.grant_numbers)
        return QueuePosition(position) if position > 1 else chosen
