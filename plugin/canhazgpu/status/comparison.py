"""Compare two statuses: did anything change that is worth showing; pure."""

from __future__ import annotations

from collections.abc import Iterable

from canhazgpu.gpu.scan import GpuProcess
from canhazgpu.status.node_status import GpuStatus, NodeStatus


def comparison_key(nodes: Iterable[NodeStatus]) -> tuple[object, ...]:
    """Return the compared values: holders, use, queues and faults.

    Values that change all the time are left out: ages, heartbeats, amounts of memory.
    """
    return tuple(
        (
            node.node,
            node.fault,
            node.lacks_gpus,
            node.reservations_known,
            node.hooks_outage.reason if node.hooks_outage else None,
            tuple(map(_gpu_key, node.gpus)),
            tuple(one.owner for one in node.queue),
        )
        for node in nodes
    )


def _gpu_key(gpu: GpuStatus) -> tuple[object, ...]:
    quarantine = gpu.quarantine
    return (
        gpu.index,
        gpu.uuid,
        gpu.state,
        gpu.usage,
        gpu.unknown_reason,
        tuple((one.claim, one.granted_at, one.expires_at) for one in gpu.holders),
        (quarantine.reason, quarantine.by) if quarantine else None,
        tuple(map(_process_key, gpu.processes)),
        tuple(map(_process_key, gpu.intruders)),
    )


def _process_key(process: GpuProcess) -> tuple[object, ...]:
    return (process.pid, process.uid, process.name, process.model)
