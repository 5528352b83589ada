"""What a waiter could get, by the scan that a node published last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.allocation.coverage import PidNamespace
from canhazgpu.allocation.feasibility import Feasibility, feasibility
from canhazgpu.allocation.intruders import other_processes
from canhazgpu.node.identity import boot_id, pid_namespace
from canhazgpu.probe.node_probe import judge_scan, usage_policy

if TYPE_CHECKING:
    from canhazgpu.config.schema import ValidationConfig
    from canhazgpu.gpu.scan import GpuProcess, GpuReading
    from canhazgpu.ledger.values import NodeView, Reservation, Waiter


def scan_feasibility(
    view: NodeView, waiter: Waiter, validation: ValidationConfig, *, force: bool
) -> Feasibility | None:
    """Return the waiter's feasibility, None where the view has no scan that could be read."""
    if view.scan is None or view.scan.fault is not None or not view.scan.gpus:
        return None
    policy = usage_policy(validation)
    namespace = PidNamespace(boot_id(), pid_namespace())

    def other_use(reservation: Reservation, gpu: GpuReading) -> tuple[GpuProcess, ...]:
        claims = [one.claim for one in reservation.holders]
        return other_processes(claims, gpu.processes, policy, namespace).intruders

    observation = judge_scan(view.scan, policy, health_checks=validation.health_checks)
    return feasibility(view, observation, waiter, other_use, force=force)
