"""The policy ``kill``: end processes on a job's GPUs to which no owner has a right."""

from __future__ import annotations

from collections.abc import Callable

from canhazgpu.conflict.kill_exemptions import exemption_reason
from canhazgpu.conflict.obstacles import (
    JobConflict,
    Obstacle,
    can_be_freed_by_kill,
    processes_to_end,
)
from canhazgpu.conflict.policy import ConflictCause
from canhazgpu.gpu.scan import GpuProcess, GpuReading
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import NodeView
from canhazgpu.node.termination import ProcessTerminator
from canhazgpu.probe.node_probe import usage_policy
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.hook.log import HookDecision
from canhazgpu.schedulers.slurm.hook.node_context import JobHook
from canhazgpu.schedulers.slurm.hook.process_rights import process_rights_of_others


class KillPolicy:
    """The processes that may be ended for one job.

    Without `kills` these are none, and the scheduler is not asked.
    """

    def __init__(self, hook: JobHook, *, kills: bool) -> None:
        self._hook = hook
        self._kills = kills
        self._usage = usage_policy(hook.config.validation)
        self._exemptions: dict[int, str] = {}

    def assess(self, observation: Observation, view: NodeView) -> None:
        """Decide for each process on the GPUs in use whether it may be ended."""
        self._exemptions = {}
        processes = [
            process
            for gpu in observation.scan.gpus
            if gpu.uuid in observation.in_use and gpu.uuid not in view.reservations
            for process in gpu.processes
        ]
        if not self._kills or not processes:
            return
        rights = process_rights_of_others(self._hook, view)
        own = f"{names.SCHEDULER_TYPE}:{self._hook.job.owner.job_id}"
        self._exemptions = {one.pid: exemption_reason(one, own, rights) for one in processes}

    def can_free(self, gpu: GpuReading) -> bool:
        """Tell whether ending processes would free this GPU."""
        return can_be_freed_by_kill(
            [Obstacle(gpu, ConflictCause.UNRESERVED)], self._exemptions, self._usage
        )

    def can_clear(self, conflict: JobConflict) -> bool:
        """Tell whether ending processes would remove all obstacles."""
        return bool(conflict.obstacles) and can_be_freed_by_kill(
            conflict.obstacles, self._exemptions, self._usage
        )

    def end_processes(self, conflict: JobConflict, assess: Callable[[], JobConflict]) -> bool:
        """End the processes if a second assessment still allows it; returns whether it did."""
        with ProcessTerminator(self._targets(conflict)) as held:
            current = assess()
            if not self.can_clear(current):
                return False
            # A process that started meanwhile is not held; the next step handles it.
            targets = {pid: what for pid, what in self._targets(current).items() if pid in held}
            alive = held.terminate(targets, self._hook.config.slurm.kill_grace_s)
        for pid, (gpu, process) in targets.items():
            self._log(gpu, process, "PID {} does not end" if pid in alive else "ended PID {}")
        return True

    def _targets(self, conflict: JobConflict) -> dict[int, tuple[GpuReading, GpuProcess]]:
        return {
            process.pid: (one.gpu, process)
            for one in conflict.obstacles
            for process in processes_to_end(one.gpu, self._usage)
        }

    def _log(self, gpu: GpuReading, process: GpuProcess, what: str) -> None:
        decision = HookDecision(
            f"{what.format(process.pid)} ({process.name or 'unknown process'})"
            f" of {process.user or process.uid}",
            f"it used GPU {gpu.display_index} ({gpu.uuid}) WITHOUT RESERVATION",
        )
        self._hook.actions.log_decision(self._hook.job.owner.job_id, decision)
