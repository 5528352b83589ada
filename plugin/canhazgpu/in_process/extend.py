"""Extend the caller's reservations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.in_process.node_gpus import node_gpus
from canhazgpu.node.users import require_may_reserve
from canhazgpu.people.permissions import check_max_reserve, holdings_to_extend
from canhazgpu.service.holdings import ExtendAnswer

if TYPE_CHECKING:
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.service.holdings import ExtendRequest


def extend(adapters: Adapters, request: ExtendRequest) -> ExtendAnswer:
    """See `NodeService.extend`."""
    caller = adapters.caller()
    require_may_reserve(caller)
    config = adapters.effective_config().config
    ledger = adapters.writer(config)
    gpus = node_gpus(adapters, config, ledger, request.node, request.gpus)
    view = gpus.view
    named = None if request.gpus is None else gpus.resolve(request.gpus)
    selected = holdings_to_extend(view, caller.uid, named, gpus.display_indices)
    longest_s = 0.0 if caller.rights.may_administrate else config.run.max_reserve_s
    check_max_reserve(view, selected, request.duration_s, longest_s)
    extended = tuple(
        reservation
        for one in selected
        for reservation in ledger.extend(
            view.node, one.claim.owner, request.duration_s, one.gpus, longest_s
        )
    )
    expired = {gpu for one in selected for gpu in one.gpus} - {one.gpu for one in extended}
    return ExtendAnswer(
        view.node, view.read_at, gpus.display_indices, extended, tuple(sorted(expired))
    )
