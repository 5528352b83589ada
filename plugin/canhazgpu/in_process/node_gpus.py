"""The GPUs of one node, by the ledger and a scan, for requests that name GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from canhazgpu.errors import InputError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.ids import GpuIndex, GpuSelector, MigIndex, resolve_gpus
from canhazgpu.node.identity import node_name
from canhazgpu.people.holdings import gpu_display_indices, gpu_list_text, scanned_and_ledger_gpus

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.gpu.scan import GpuReading
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.ledger.values import NodeView


@dataclass(frozen=True, slots=True)
class NodeGpus:
    """One node: its view in the ledger, and its GPUs; those that no scan shows come last."""

    view: NodeView
    readings: tuple[GpuReading, ...]

    @property
    def display_indices(self) -> dict[str, str]:
        """The GPUs' display indices, by UUID."""
        return gpu_display_indices(self.readings)

    def resolve(self, selectors: Sequence[GpuSelector]) -> tuple[str, ...]:
        """Return the UUIDs of the selected GPUs; raises `InputError` for one that is not there."""
        return resolve_gpus(selectors, self.readings, self.view.node)

    def names(self, gpus: Iterable[str]) -> str:
        """Return the GPUs as people name them, ``GPU 0, 3``."""
        return gpu_list_text(gpus, self.display_indices)


def node_gpus(
    adapters: Adapters,
    config: Config,
    ledger: Ledger,
    node: str | None,
    selectors: Sequence[GpuSelector] | None = None,
) -> NodeGpus:
    """Return the GPUs of a node, None for this one.

    An index may change at a reboot. So this node is scanned if a selector is an index. If that
    scan fails, and for other nodes, the last published scan is used. Raises `InputError` for
    another node that the ledger does not know, and `StoreError`.
    """
    local = node_name(config.node, adapters.environ)
    pending_scan = None
    if node in (None, local) and any(
        isinstance(one, GpuIndex | MigIndex) for one in selectors or ()
    ):
        pending_scan = adapters.open_probe(local, config).start()
    (view,) = ledger.read_nodes([node or local])
    if node not in (None, local):
        refuse_unknown_node(view)
    scan = pending_scan.observe().scan if pending_scan else None
    if scan is None or scan.fault is not None:
        scan = view.scan or scan
    return NodeGpus(view, scanned_and_ledger_gpus(view, scan.gpus if scan else ()))


def refuse_unknown_node(view: NodeView) -> None:
    """Raise `InputError` for a node that the ledger does not know."""
    if not (view.is_known or view.queue):
        raise InputError(
            f"the ledger knows no node {view.node!r}; 'canhazgpu admin nodes' shows all it knows"
        )
