"""How many GPUs of a node one user may have, and how often one may wait for some; pure.

Who grants applies them where it decides, so that two requests at once do not both pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.owner import MANUAL, RUN
from canhazgpu.ledger.values import Claim, Reservation, Waiter

PEOPLES = (RUN, MANUAL)
"""The types of claims that count: what jobs have is the scheduler's to limit."""


@dataclass(frozen=True, slots=True)
class UserLimits:
    """The most that one user may have of one node; 0 is no limit.

    `max_gpus` counts GPUs and MIG instances, those that the user holds and those that the user
    waits for; `max_waiters` counts requests that wait.
    """

    max_gpus: int = 0
    max_waiters: int = 0


NO_LIMITS = UserLimits()


def over_limit(
    limits: UserLimits,
    held: Iterable[Reservation],
    waiters: Iterable[Waiter],
    claim: Claim,
    count: int,
) -> str:
    """Return why the claim may not have `count` GPUs, "" where it may.

    `held` are the node's reservations that have not expired, and `waiters` its queue in its order.
    What has the claim's own owner is not counted: it is this request, repeated, or when its turn
    has come. Who waits behind it is not counted either.
    """
    if not limits.max_gpus:
        return ""
    holds = sum(_is_others_of_user(one.claim, claim) for gpu in held for one in gpu.holders)
    before = takewhile(lambda one: one.owner != claim.owner, waiters)
    waits = sum(_wanted(one) for one in _waiters_of_user(before, claim.uid, claim.owner))
    if holds + waits + count <= limits.max_gpus:
        return ""
    return (
        f"a user may have {limits.max_gpus} {_plural('GPU', limits.max_gpus)} of a node at most"
        f" (run.max_gpus); you hold {holds}, wait for {waits}, and ask for {count} more"
    )


def too_many_waiters(limits: UserLimits, waiters: Iterable[Waiter], waiter: Waiter) -> str:
    """Return why the waiter may not join the queue, "" where it may."""
    if not limits.max_waiters:
        return ""
    waiting = len(_waiters_of_user(waiters, waiter.uid, waiter.owner))
    if waiting < limits.max_waiters:
        return ""
    return (
        f"{waiting} {_plural('request', waiting)} of yours wait already, and a user may have"
        f" {limits.max_waiters} at most (agent.max_waiters_per_user)"
    )


def join_refusal(
    limits: UserLimits, held: Iterable[Reservation], waiters: Iterable[Waiter], waiter: Waiter
) -> str:
    """Return why the waiter may not join these, "" where it may; see `over_limit`."""
    others = list(waiters)
    claim = Claim(waiter.owner, "", waiter.user, waiter.uid)
    return too_many_waiters(limits, others, waiter) or over_limit(
        limits, held, others, claim, _wanted(waiter)
    )


def reserve_limit_text(longest_s: float) -> str:
    """Return why a reservation may not end so late."""
    return f"a reservation may last at most {longest_s:.0f}s from now (run.max_reserve_s)"


def _is_others_of_user(held: Claim, claim: Claim) -> bool:
    return held.type in PEOPLES and held.uid == claim.uid and held.owner != claim.owner


def _waiters_of_user(waiters: Iterable[Waiter], uid: int | None, owner: str) -> list[Waiter]:
    return [one for one in waiters if one.uid == uid and one.owner != owner]


def _wanted(waiter: Waiter) -> int:
    return len(waiter.gpus) or waiter.count


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
