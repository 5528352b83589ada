"""The queue of a node with a book: its own file says whose turn it is, and the store shows it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from canhazgpu.errors import StoreError
from canhazgpu.ledger.duration_limit import check_duration
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.grant_steps import with_open_intents
from canhazgpu.ledger.local.queue.queue_file import QueueFile
from canhazgpu.ledger.local.queue.queued_request import (
    Entries,
    QueuedRequest,
    position_of,
    without_owners,
)
from canhazgpu.ledger.local.store_access import StoreAccess
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.user_limits import NO_LIMITS, UserLimits, join_refusal
from canhazgpu.ledger.values import Waiter

LEFT = "left the queue"
"""What the history says of a waiter who left while the store was away."""
SERVED = "served"
"""What ``scripts/shared/common.lua`` says of a waiter who got GPUs."""


class NodeQueue:
    """The node's queue, as one process of the node uses it.

    The methods raise `NodeStateError`. They do not fail where the store does: it shows the queue
    again with the next heartbeat.
    """

    def __init__(
        self, node: str, file: QueueFile, book_file: BookFile, access: StoreAccess
    ) -> None:
        self._node = node
        self._file = file
        self._book_file = book_file
        self._access = access

    def join(self, entry: QueuedRequest, limits: UserLimits = NO_LIMITS) -> int:
        """Enter it at the end, or in its owner's place; return the position, from 1.

        The times of its waiter are set here.
        Raises `LimitError` where its user may not wait for more.
        """
        check_duration(entry.waiter.lease_s)
        with self._book_file.open() as transaction:
            now, book = transaction.now, with_open_intents(transaction.book, entry.owner)
        waiter = replace(entry.waiter, since=now, renewed_at=now)

        def refusal(others: Entries) -> str:
            waiting = [one.waiter for one in without_owners(others, [*book.grant_numbers])]
            return join_refusal(limits, book.reservations.values(), waiting, waiter)

        position = self._file.join(replace(entry, waiter=waiter), refusal)
        self.mirror()
        return position

    def leave(self, owners: Sequence[str], reason: str) -> None:
        """Remove these owners, also those that are in the store's queue alone."""
        left = {one.owner for one in self._file.leave(owners)}
        if left:
            self.mirror(reason)
        if others := [one for one in owners if one not in left]:
            self._tell(lambda store: store.leave_queue(self._node, others, reason))

    def move_to_end(self, owner: str) -> None:
        """Let all others pass."""
        self._file.move_to_end(owner)
        self.mirror()

    def served(self, owner: str) -> None:
        """Remove an owner that has its GPUs."""
        if any(one.owner == owner for one in self._file.entries()):
            self.leave([owner], SERVED)

    def position(self, owner: str, holders: Collection[str]) -> int:
        """Return the owner's place, or the one that it would get; `holders` wait no more."""
        return position_of(without_owners(self._file.entries(), [*holders]), owner)

    def waiters(self, holders: Collection[str] = ()) -> tuple[Waiter, ...]:
        """Return who waits, the first in the queue first; `holders` wait no more."""
        return tuple(one.waiter for one in without_owners(self._file.entries(), [*holders]))

    def mirror(self, reason: str = LEFT) -> None:
        """Have the store show the queue, with a heartbeat of all who wait."""
        waiters = self.waiters()
        self._tell(lambda store: store.mirror_queue(self._node, waiters, reason))

    def _tell(self, tell: Callable[[Ledger], None]) -> None:
        with suppress(StoreError):
            self._access.ask(tell, lambda: None)
