"""Who a caller counts as, and what that user may do."""

from __future__ import annotations

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.node.users import ADMINISTRATORS_RIGHTS, EVERYBODYS_RIGHTS, Rights

ROOT = 0


@dataclass(frozen=True, slots=True)
class CallerFacts:
    """What the kernel and the node's accounts say of a caller.

    `uid` is the kernel's. `has_account` tells whether it is a user's own, None where the name
    service gave no answer. `owners` are the users in whose ranges of subordinate uids it is.
    `groups` are those of the process, and of the owner where it has one.
    """

    uid: int
    has_account: bool | None
    owners: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Accounts:
    """Users and groups by number. `is_complete`: each name that was given is known by number."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()
    is_complete: bool = True

    def has(self, uid: int, groups: frozenset[int]) -> bool:
        """Return whether the user is one of them, or in one of the groups."""
        return uid in self.uids or not self.gids.isdisjoint(groups)


def counts_as(facts: CallerFacts) -> int | None:
    """Return the uid that the caller counts as; None for one of whom nobody knows whose it is.

    Root's ranges do not count: root may map any uid, and what is in a container of root's is not
    root. A uid that is somebody's account, and in the range of another, is neither's.
    """
    others = facts.owners - {ROOT, facts.uid}
    if facts.has_account is not False and not others:
        return facts.uid
    return next(iter(others)) if len(others) == 1 and not facts.has_account else None


def rights_of(facts: CallerFacts, operators: Accounts, users: Accounts | None) -> Rights:
    """Return the caller's rights; `users` are those who may reserve, None for everybody.

    Subordinate uids do not administrate: they are the user's containers, not the user's login.
    """
    if facts.uid == ROOT:
        return ADMINISTRATORS_RIGHTS
    uid = counts_as(facts)
    if uid is None:
        return Rights(may_reserve=False, why_not=_unknown_text(facts))
    if uid == facts.uid and operators.has(uid, facts.groups):
        return ADMINISTRATORS_RIGHTS
    if users is None or users.has(uid, facts.groups):
        return EVERYBODYS_RIGHTS
    why = "this site lets others reserve (agent.users)"
    if not users.is_complete:
        why += ", as far as the name service answered"
    return Rights(may_reserve=False, why_not=why)


def _unknown_text(facts: CallerFacts) -> str:
    if facts.has_account and facts.owners:
        return f"uid {facts.uid} has an account, and is in another user's range of /etc/subuid"
    if facts.owners - {ROOT}:
        return f"uid {facts.uid} is in several users' ranges of /etc/subuid"
    return f"uid {facts.uid} has no account on this node, and is in no user's range of /etc/subuid"
