"""Quarantine GPUs by hand, and lift quarantines."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from canhazgpu.errors import CanhazgpuError
from canhazgpu.gpu.health import unhealthy_gpus
from canhazgpu.gpu.ids import refuse_duplicates
from canhazgpu.in_process.node_gpus import NodeGpus, node_gpus
from canhazgpu.node.users import Caller, require_administrator
from canhazgpu.people.holdings import current_reservations
from canhazgpu.service.health import QuarantineAnswer, QuarantineChange

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.gpu.ids import GpuSelector
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.service.health import QuarantineRequest, UnquarantineRequest


def quarantine(adapters: Adapters, request: QuarantineRequest) -> QuarantineAnswer:
    """See `NodeService.quarantine`."""
    caller, _, ledger, gpus = _open_node_gpus(adapters, request.gpus, request.node)
    node, reservations = gpus.view.node, current_reservations(gpus.view)

    def change(uuid: str) -> QuarantineChange:
        return QuarantineChange(
            uuid,
            ledger.quarantine(node, uuid, request.reason, caller.user),
            gpus.view.quarantines.get(uuid),
            tuple(one.claim for one in reservations[uuid].holders) if uuid in reservations else (),
        )

    return _apply_to_each(gpus, gpus.resolve(request.gpus), change)


def unquarantine(adapters: Adapters, request: UnquarantineRequest) -> QuarantineAnswer:
    """See `NodeService.unquarantine`."""
    caller, config, ledger, gpus = _open_node_gpus(adapters, request.gpus, request.node)
    unhealthy = unhealthy_gpus(gpus.readings, adapters.health_checks(gpus.view.node, config))

    def change(uuid: str) -> QuarantineChange:
        lifted = ledger.unquarantine(gpus.view.node, uuid, caller.user)
        return QuarantineChange(uuid, lifted, unhealthy=unhealthy.get(uuid, ""))

    return _apply_to_each(gpus, gpus.resolve(request.gpus), change)


def _open_node_gpus(
    adapters: Adapters, selectors: tuple[GpuSelector, ...], node: str | None
) -> tuple[Caller, Config, Ledger, NodeGpus]:
    """Check that the caller administrates, and open the ledger and the node's GPUs."""
    caller = adapters.caller()
    require_administrator(caller, "change what is quarantined")
    config = adapters.effective_config().config
    ledger = adapters.writer(config)
    refuse_duplicates(selectors)
    return caller, config, ledger, node_gpus(adapters, config, ledger, node, selectors)


def _apply_to_each(
    gpus: NodeGpus, uuids: tuple[str, ...], change: Callable[[str], QuarantineChange]
) -> QuarantineAnswer:
    changes: list[QuarantineChange] = []
    fault = None
    for uuid in uuids:
        try:
            changes.append(change(uuid))
        except CanhazgpuError as exc:
            # The answer still says what was changed before the error.
            fault = exc
            break
    return QuarantineAnswer(gpus.view.node, gpus.display_indices, tuple(changes), fault)
