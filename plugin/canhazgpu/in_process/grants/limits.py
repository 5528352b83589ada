"""The site's limits for what a user asks for; administrators have none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.errors import InputError, LimitError
from canhazgpu.ledger.user_limits import NO_LIMITS, UserLimits, over_limit
from canhazgpu.node.users import require_may_reserve
from canhazgpu.people.holdings import current_reservations, current_waiters

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.ledger.values import Claim, NodeView
    from canhazgpu.node.users import Caller
    from canhazgpu.service.grants import GpuRequest


def user_limits(config: Config, caller: Caller) -> UserLimits:
    """Return the limits that hold for the caller on this node."""
    if caller.rights.may_administrate:
        return NO_LIMITS
    return UserLimits(config.run.max_gpus, config.agent.max_waiters_per_user)


def refuse_what_site_forbids(config: Config, caller: Caller, request: GpuRequest) -> None:
    """Raise `InputError` for a request that the site never grants to this caller."""
    require_may_reserve(caller)
    if caller.rights.may_administrate:
        return
    most, highest = config.run.max_gpus, config.run.max_memory_threshold_mb
    if most and requested_count(request) > most:
        raise InputError(
            f"{requested_count(request)} GPUs are more than this site allows a user on one node:"
            f" {most} (run.max_gpus)"
        )
    if highest and (request.memory_threshold_mb or 0) > highest:
        raise InputError(
            f"--memory-threshold is higher than the {highest} MB that this site allows"
            " (run.max_memory_threshold_mb)"
        )


def refuse_over_limit(limits: UserLimits, view: NodeView, claim: Claim, count: int) -> None:
    """Raise `LimitError` where the claim's user has too many GPUs by the view.

    The view may be old when the grant is decided, which applies the limits again.
    """
    held, waiters = current_reservations(view).values(), current_waiters(view)
    if why := over_limit(limits, held, waiters, claim, count):
        raise LimitError(why)


def requested_count(request: GpuRequest) -> int:
    """Return how many GPUs the request is for."""
    return len(request.selectors) or request.count
