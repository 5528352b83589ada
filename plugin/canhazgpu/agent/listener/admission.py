"""How many requests the agent takes at once, of whom.

Hooks have slots of their own: whatever people ask, it costs no job its prolog. A connection counts
from its accept(2) on, whether it has sent its request or not.
"""

from __future__ import annotations

from collections import Counter

from canhazgpu.agent.callers.admitted_user import AdmittedUser
from canhazgpu.agent.request import RequestSocket
from canhazgpu.frozen_dataclass import dataclass

FIRST_REQUESTS = 16
"""Places beyond those of people for users who have no request under way: some users who keep all
their requests busy keep nobody else out."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most requests at once: of hooks, of people, and of one user among these."""

    hooks: int
    people: int
    per_user: int


class Admission:
    """The requests that are under way."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._hooks = 0
        self._users: Counter[AdmittedUser] = Counter()

    def is_full(self, arrived_at: RequestSocket) -> bool:
        """Return whether nobody more is let in at this socket: the next one waits outside."""
        if arrived_at is RequestSocket.HOOKS:
            return self._hooks >= self._limits.hooks
        return self._users.total() >= self._limits.people + FIRST_REQUESTS

    def admit(self, arrived_at: RequestSocket, user: AdmittedUser) -> bool:
        """Count a request; returns False, and counts none, where this user has too many."""
        if arrived_at is RequestSocket.HOOKS:
            self._hooks += 1
            return True
        most = self._limits.per_user if self._users.total() < self._limits.people else 1
        if self._users[user] >= most:
            return False
        self._users[user] += 1
        return True

    def count(self, arrived_at: RequestSocket, user: AdmittedUser) -> None:
        """Count a request that was let in before: whatever the limits are now, it is there."""
        if arrived_at is RequestSocket.HOOKS:
            self._hooks += 1
        else:
            self._users[user] += 1

    def leave(self, arrived_at: RequestSocket, user: AdmittedUser) -> None:
        """Count a request no longer."""
        if arrived_at is RequestSocket.HOOKS:
            self._hooks -= 1
            return
        self._users[user] -= 1
        if not self._users[user]:
            del self._users[user]
