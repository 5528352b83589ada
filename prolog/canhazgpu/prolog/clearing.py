"""The policy ``kill``: end the processes in the way of a job, where nobody has a right to them."""

from __future__ import annotations

from collections.abc import Callable

from canhazgpu.conflict.policy import Cause
from canhazgpu.conflict.situation import Obstacle, Situation, can_be_cleared, targets_on
from canhazgpu.conflict.spare import why_spared
from canhazgpu.gpu.scan import GpuProcess, GpuReading
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import NodeView
from canhazgpu.node.ending import HeldProcesses
from canhazgpu.probe.node_probe import usage_policy
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.hook import Hook
from canhazgpu.schedulers.slurm.rights import rights_of_others


class Clearing:
    """Who may be ended for one job; without `kills` nobody, and the scheduler is not asked."""

    def __init__(self, hook: Hook, *, kills: bool) -> None:
        self._hook = hook
        self._kills = kills
        self._usage = usage_policy(hook.config.validation)
        self._spared: dict[int, str] = {}

    def see(self, observation: Observation, view: NodeView) -> None:
        """Judge the processes on the GPUs in use, by what was just seen."""
        self._spared = {}
        processes = [
            process
            for gpu in observation.scan.gpus
            if gpu.uuid in observation.in_use and gpu.uuid not in view.reservations
            for process in gpu.processes
        ]
        if not self._kills or not processes:
            return
        rights = rights_of_others(self._hook, view)
        own = f"{names.TYPE}:{self._hook.job.owner.job_id}"
        self._spared = {one.pid: why_spared(one, own, rights) for one in processes}

    def would_free(self, gpu: GpuReading) -> bool:
        """Tell whether ending processes would free this GPU."""
        return can_be_cleared([Obstacle(gpu, Cause.UNRESERVED)], self._spared, self._usage)

    def would_clear(self, situation: Situation) -> bool:
        """Tell whether ending processes would free all that is in the way."""
        return bool(situation.obstacles) and can_be_cleared(
            situation.obstacles, self._spared, self._usage
        )

    def clear(self, situation: Situation, look: Callable[[], Situation]) -> bool:
        """End what is in the way, if a second look still allows it; tells whether it was tried."""
        with HeldProcesses(self._targets(situation)) as held:
            found = look()
            if not self.would_clear(found):
                return False
            # One that began meanwhile is not held, and left to the next step.
            targets = {pid: what for pid, what in self._targets(found).items() if pid in held}
            alive = held.end(targets, self._hook.config.slurm.kill_grace_s)
        for pid, (gpu, process) in targets.items():
            self._log(gpu, process, "PID {} does not end" if pid in alive else "ended PID {}")
        return True

    def _targets(self, situation: Situation) -> dict[int, tuple[GpuReading, GpuProcess]]:
        return {
            process.pid: (one.gpu, process)
            for one in situation.obstacles
            for process in targets_on(one.gpu, self._usage)
        }

    def _log(self, gpu: GpuReading, process: GpuProcess, what: str) -> None:
        self._hook.actions.log(
            f"job {self._hook.job.owner.job_id}: {what.format(process.pid)}"
            f" ({process.name or 'unknown process'}) of {process.user or process.uid}:"
            f" it used GPU {gpu.place} ({gpu.uuid}) WITHOUT RESERVATION"
        )
