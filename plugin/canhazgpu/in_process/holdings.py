"""Extend, release and revoke reservations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from canhazgpu.errors import CanhazgpuError
from canhazgpu.in_process.node_gpus import NodeGpus, node_gpus
from canhazgpu.node.users import require_root
from canhazgpu.people.holdings import Holding, holdings
from canhazgpu.people.permissions import (
    check_max_reserve,
    holdings_to_extend,
    holdings_to_release,
    run_holdings,
)
from canhazgpu.service.holdings import ExtendAnswer, ReleaseAnswer

if TYPE_CHECKING:
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.ledger.values import Reservation
    from canhazgpu.service.holdings import ExtendRequest, ReleaseRequest, RevokeRequest

BY_OWNER = "released by its owner"


def release(adapters: Adapters, request: ReleaseRequest) -> ReleaseAnswer:
    """See `NodeService.release`."""
    config = adapters.effective().config
    uid = adapters.caller().uid
    ledger = adapters.writer(config.store)
    gpus = node_gpus(adapters, config, ledger, request.node, request.gpus)
    named = None if request.gpus is None else gpus.resolve(request.gpus)
    wanted = holdings_to_release(gpus.view, uid, named, gpus.places, force=request.force)
    running = () if named is not None else run_holdings(gpus.view, uid)
    released, fault = _release_each(ledger, gpus, wanted, BY_OWNER)
    return ReleaseAnswer(gpus.view.node, gpus.places, released, named, running, fault)


def revoke(adapters: Adapters, request: RevokeRequest) -> ReleaseAnswer:
    """See `NodeService.revoke`."""
    caller = adapters.caller()
    require_root(caller, "release what others hold")
    config = adapters.effective().config
    ledger = adapters.writer(config.store)
    gpus = node_gpus(adapters, config, ledger, request.node, request.gpus)
    named = None if request.gpus is None else gpus.resolve(request.gpus)
    wanted = holdings(gpus.view, _fits(request), named)
    released, fault = _release_each(ledger, gpus, wanted, request.reason, caller.user)
    return ReleaseAnswer(gpus.view.node, gpus.places, released, named, fault=fault)


def extend(adapters: Adapters, request: ExtendRequest) -> ExtendAnswer:
    """See `NodeService.extend`."""
    config = adapters.effective().config
    caller = adapters.caller()
    ledger = adapters.writer(config.store)
    gpus = node_gpus(adapters, config, ledger, request.node, request.gpus)
    named = None if request.gpus is None else gpus.resolve(request.gpus)
    found = holdings_to_extend(gpus.view, caller.uid, named, gpus.places)
    if not caller.is_root:
        check_max_reserve(gpus.view, found, request.duration_s, config.run.max_reserve_s)
    extended = tuple(
        reservation
        for one in found
        for reservation in ledger.extend(
            gpus.view.node, one.claim.owner, request.duration_s, one.gpus
        )
    )
    over = {gpu for one in found for gpu in one.gpus} - {one.gpu for one in extended}
    view = gpus.view
    return ExtendAnswer(view.node, view.read_at, gpus.places, extended, tuple(sorted(over)))


def _release_each(
    ledger: Ledger, gpus: NodeGpus, wanted: Sequence[Holding], reason: str, by: str = ""
) -> tuple[tuple[Holding, ...], CanhazgpuError | None]:
    """Return what was still held and is now released, and what ended that early."""
    done: list[Holding] = []
    for one in wanted:
        try:
            freed = ledger.release(gpus.view.node, one.claim.owner, reason, one.gpus, by)
        except CanhazgpuError as exc:
            # What was released before is news that the caller must hear.
            return tuple(done), exc
        if freed:
            done.append(Holding(one.claim, tuple(freed)))
    return tuple(done), None


def _fits(request: RevokeRequest) -> Callable[[Reservation], bool]:
    def fits(reservation: Reservation) -> bool:
        claim = reservation.claim
        return (
            request.user in (None, claim.user)
            and request.owner in (None, claim.owner)
            and request.job_id in (None, claim.job_id)
        )

    return fits
