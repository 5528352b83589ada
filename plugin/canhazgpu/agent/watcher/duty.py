"""What the watcher does for a node, one duty beside another, in one thread that never blocks."""

from __future__ import annotations

import select
from collections.abc import Iterable, Sequence, Set
from typing import Protocol

NEVER_S = 3600.0
"""How long to wait where no duty says when it is due."""


class Duty(Protocol):
    """Something that is due now and again, until there is no more of it.

    What may block is left to a `ForkedTask`.
    """

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do."""

    def descriptors(self) -> Iterable[int]:
        """Yield what tells by becoming readable that there is something to do."""

    def wait_s(self) -> float | None:
        """Return after how many seconds there is something to do anyway, None for never."""

    def step(self, ready: Set[int]) -> None:
        """Do what is due; `ready` are the descriptors that are readable."""


def carry_out(duties: Sequence[Duty]) -> None:
    """Carry out the duties until none of them has anything left to do."""
    ready: set[int] = set()
    while True:
        for duty in duties:
            duty.step(ready)
        if all(duty.is_done for duty in duties):
            return
        ready = _wait(duties)


def _wait(duties: Sequence[Duty]) -> set[int]:
    """Wait until something is due; return the descriptors that are readable."""
    poll = select.poll()
    for duty in duties:
        for descriptor in duty.descriptors():
            poll.register(descriptor, select.POLLIN)
    known = [wait_s for duty in duties if (wait_s := duty.wait_s()) is not None]
    # One millisecond more: the poll must not end before the time that it waits for.
    timeout_ms = max(min(known, default=NEVER_S), 0.0) * 1000 + 1
    return {descriptor for descriptor, _ in poll.poll(timeout_ms)}
