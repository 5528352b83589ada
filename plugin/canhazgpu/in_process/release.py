"""Release the caller's reservations, and revoke anybody's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from canhazgpu.errors import CanhazgpuError
from canhazgpu.in_process.node_gpus import NodeGpus, node_gpus
from canhazgpu.ledger.local.notices import Notices
from canhazgpu.ledger.notice import Notice
from canhazgpu.node.identity import node_name, state_dir
from canhazgpu.node.users import require_administrator
from canhazgpu.people.holdings import Holding, holdings
from canhazgpu.people.permissions import (
    holdings_to_release,
    run_holdings,
)
from canhazgpu.service.holdings import ReleaseAnswer

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.ledger.values import Reservation
    from canhazgpu.node.users import Caller
    from canhazgpu.service.holdings import ReleaseRequest, RevokeRequest

RELEASED_BY_OWNER = "released by its owner"


def release(adapters: Adapters, request: ReleaseRequest) -> ReleaseAnswer:
    """See `NodeService.release`."""
    config = adapters.effective_config().config
    uid = adapters.caller().uid
    ledger = adapters.writer(config)
    gpus = node_gpus(adapters, config, ledger, request.node, request.gpus)
    named = None if request.gpus is None else gpus.resolve(request.gpus)
    selected = holdings_to_release(gpus.view, uid, named, gpus.display_indices, force=request.force)
    running = () if named is not None else run_holdings(gpus.view, uid)
    released, fault = _release_each(ledger, gpus, selected, RELEASED_BY_OWNER)
    return ReleaseAnswer(gpus.view.node, gpus.display_indices, released, named, running, fault)


def revoke(adapters: Adapters, request: RevokeRequest) -> ReleaseAnswer:
    """See `NodeService.revoke`."""
    caller = adapters.caller()
    require_administrator(caller, "release what others hold")
    config = adapters.effective_config().config
    ledger = adapters.writer(config)
    gpus = node_gpus(adapters, config, ledger, request.node, request.gpus)
    named = None if request.gpus is None else gpus.resolve(request.gpus)
    selected = holdings(gpus.view, matches(request), named)
    released, fault = _release_each(ledger, gpus, selected, request.reason, caller.user)
    _tell_holders(adapters, config, gpus, released, caller, request.reason)
    return ReleaseAnswer(gpus.view.node, gpus.display_indices, released, named, fault=fault)


def _tell_holders(
    adapters: Adapters,
    config: Config,
    gpus: NodeGpus,
    released: Sequence[Holding],
    caller: Caller,
    reason: str,
) -> None:
    """Have those whose GPUs were taken told at their next command on this node."""
    if gpus.view.node != node_name(config.node, adapters.environ):
        return
    notices = Notices(state_dir(config.node, gpus.view.node))
    for one in released:
        if one.claim.uid != caller.uid:
            notice = Notice(gpus.names(one.gpus), time.time(), caller.user, reason)
            notices.add(one.claim.uid, notice)


def _release_each(
    ledger: Ledger, gpus: NodeGpus, selected: Sequence[Holding], reason: str, by: str = ""
) -> tuple[tuple[Holding, ...], CanhazgpuError | None]:
    """Return what was released, and the error that ended it early, if any."""
    released: list[Holding] = []
    for one in selected:
        try:
            freed = ledger.release(gpus.view.node, one.claim.owner, reason, one.gpus, by)
        except CanhazgpuError as exc:
            # The answer still says what was released before the error.
            return tuple(released), exc
        if freed:
            released.append(Holding(one.claim, tuple(freed)))
    return tuple(released), None


def matches(request: RevokeRequest) -> Callable[[Reservation], bool]:
    """Return what tells whether a reservation meets the request's conditions."""

    def is_meant(reservation: Reservation) -> bool:
        claim = reservation.claim
        return (
            request.user in (None, claim.user)
            and request.owner in (None, claim.owner)
            and request.job_id in (None, claim.job_id)
        )

    return is_meant
