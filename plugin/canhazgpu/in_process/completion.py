"""The values that the shell completes, read from the ledger without a scan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from canhazgpu.gpu.ml_model.short_name import short_model_name
from canhazgpu.node.identity import node_name
from canhazgpu.service.completion import Completable, Completion

if TYPE_CHECKING:
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.values import NodeView, Reservation
    from canhazgpu.node.users import Caller
    from canhazgpu.service.completion import CompletionRequest


NODES_FOR_NAMES = 200
"""Users, partitions and models are those of so many nodes: somebody waits for the key to answer."""


def completions(adapters: Adapters, request: CompletionRequest) -> tuple[Completion, ...]:
    """See `NodeService.complete`."""
    config = adapters.effective_config({"store.timeout_s": str(request.timeout_s)}).config
    ledger = adapters.reader(config)
    if request.what is Completable.NODE:
        return tuple(map(Completion, ledger.node_names()))
    if request.what in _OF_ALL_NODES:
        nodes = _spread(ledger.node_names(), NODES_FOR_NAMES)
        pages = ledger.read_node_pages(nodes, brief_above=0)
        views = (view for page in pages for view in page)
        return tuple(map(Completion, sorted(_names(request.what, views))))
    (view,) = ledger.read_nodes([node_name(config.node, adapters.environ)])
    if request.what is Completable.GPU:
        return _gpus(view, lambda _: True)
    caller = adapters.caller()
    return _gpus(view, lambda one: _is_own(one, caller))


_OF_ALL_NODES = (Completable.USER, Completable.PARTITION, Completable.MODEL)


def _spread(nodes: Sequence[str], count: int) -> list[str]:
    """Return at most so many of the nodes, evenly spread."""
    return (
        [nodes[place * len(nodes) // count] for place in range(count)]
        if len(nodes) > count
        else [*nodes]
    )


def _names(what: Completable, views: Iterable[NodeView]) -> set[str]:
    """Return the users, partitions or models of the nodes, as they were last published."""
    if what is Completable.PARTITION:
        return {name for view in views for name in view.partitions or ()}
    found: set[str | None] = set()
    for view in views:
        processes = [one for gpu in (view.scan.gpus if view.scan else ()) for one in gpu.processes]
        if what is Completable.MODEL:
            found.update(short_model_name(one.model) for one in processes if one.model)
            continue
        found.update(one.user for one in processes)
        found.update(one.claim.user for one in view.all_reservations())
        found.update(one.user for one in view.queue)
    return {name for name in found if name}


def _gpus(view: NodeView, selects: Callable[[Reservation | None], bool]) -> tuple[Completion, ...]:
    """Return the GPUs whose reservation the predicate selects; a MIG instance without an index."""
    readings = {one.uuid: one for one in view.scan.gpus if one.uuid} if view.scan else {}
    found = []
    for uuid in {**readings, **view.reservations}:
        reading = readings.get(uuid)
        # A MIG instance shares its index with the other instances of its GPU.
        has_own_index = reading is not None and reading.mig_index is None
        index = str(reading.index) if reading and has_own_index else ""
        if selects(view.reservations.get(uuid)):
            found.append(Completion(uuid, index, reading.name if reading else ""))
    return tuple(found)


def _is_own(reservation: Reservation | None, caller: Caller) -> bool:
    from canhazgpu.allocation.coverage import same_user  # noqa: PLC0415 - only to release

    claims = [one.claim for one in reservation.holders] if reservation else []
    return any(same_user(one.uid, one.user, caller.uid, caller.user) for one in claims)
