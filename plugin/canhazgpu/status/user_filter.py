"""Which GPUs and waiters concern a user; pure."""

from __future__ import annotations

from canhazgpu.allocation.coverage import same_user
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.values import Waiter
from canhazgpu.status.node_status import GpuStatus


@dataclass(frozen=True, slots=True)
class User:
    """A user; `uid` is None for one whom this machine does not know."""

    uid: int | None
    user: str


def concerns_user(user: User, gpu: GpuStatus) -> bool:
    """Tell whether the user holds the GPU, or has a process on it."""
    claims = [one.claim for one in gpu.holders]
    if any(_is_user(user, claim.uid, claim.user) for claim in claims):
        return True
    processes = gpu.reading.processes if gpu.reading else ()
    return any(_is_user(user, one.uid, one.user) for one in processes)


def is_waiter(user: User, waiter: Waiter) -> bool:
    """Tell whether it is the user who waits."""
    return _is_user(user, waiter.uid, waiter.user)


def _is_user(user: User, uid: int | None, name: str | None) -> bool:
    return bool(same_user(user.uid, user.user, uid, name))
