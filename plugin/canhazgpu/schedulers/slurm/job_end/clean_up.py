"""End or report a job's leftover processes, while its GPUs are still reserved.

The GPUs are released afterwards, so that nobody gets one that is not free yet. A GPU that stays in
use is quarantined; the node stays in service.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from canhazgpu.conflict.kill_exemptions import ProcessRights
from canhazgpu.conflict.leftovers import (
    FINAL_SCAN_S,
    EndedJob,
    Leftover,
    find_leftovers,
    gpus_held_by_others,
    gpus_of_ended_job,
    gpus_to_quarantine,
    quarantine_reason,
    settling_gpus,
)
from canhazgpu.conflict.obstacles import processes_to_end
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.ledger.local.jobs.job_record import JobRecord
from canhazgpu.ledger.port import Ledger, Observation
from canhazgpu.node.boot_clock import process_start_ticks
from canhazgpu.node.termination import ProcessTerminator
from canhazgpu.probe.node_probe import usage_policy
from canhazgpu.probe.port import PendingScan
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.hook.ended_jobs import QUARANTINED_BY_EPILOG
from canhazgpu.schedulers.slurm.hook.log import HookDecision
from canhazgpu.schedulers.slurm.hook.node_context import JobHook
from canhazgpu.schedulers.slurm.hook.process_rights import process_rights_of_others

SCAN_INTERVAL_S = 0.5


class GpuCleanUp:
    """The clean-up of one job's GPUs on this node."""

    def __init__(self, hook: JobHook, ledger: Ledger, record: JobRecord, time_s: float) -> None:
        """Take the node's record of the job, and the time limit."""
        self._hook = hook
        self._ledger = ledger
        self._record = record
        self._job = EndedJob(
            name=f"{names.SCHEDULER_TYPE}:{record.owner.job_id}",
            user=record.user,
            uid=hook.job.uid,
            began_ticks=record.began_ticks,
        )
        self._usage = usage_policy(hook.config.validation)
        self._ends_processes = hook.config.epilog.leftovers == "kill"
        self._deadline = time.monotonic() + time_s - FINAL_SCAN_S
        # Beside the store's answer. Not where others may share the GPUs: the scan would show those
        # who have left them when the store is read.
        alone = record.gpus and not record.share
        self._first_scan = hook.probe.start() if alone else None
        (self._view,) = ledger.read_nodes([hook.job.node])
        recorded = [gpu.uuid for gpu in record.gpus]
        self._held = gpus_of_ended_job(record.owner, recorded, self._view)
        # Use of a GPU that others share stays, whether or not it shows whose it is.
        self._alone = {*self._held} - gpus_held_by_others(record.owner, self._view)
        self._known_rights: ProcessRights | None = None
        self._scan: PendingScan | None = None

    def idle_s(self) -> dict[str, float]:
        """Return for how long scans found each of the job's GPUs unused."""
        owner = self._record.owner.token
        return {
            gpu: one.idle_s
            for gpu, held in self._view.reservations.items()
            for one in held.holders
            if one.claim.owner == owner
        }

    def run(self) -> PendingScan | None:
        """Clean up; returns the last scan, None if the job held no GPU."""
        if not self._held:
            return None
        observation, leftovers = self._scan_held_gpus()
        if self._ends_processes and any(not one.exemption for one in leftovers):
            self._end_leftovers(leftovers)
            observation, leftovers = self._scan_held_gpus()
        until = min(time.monotonic() + self._hook.config.epilog.settle_s, self._deadline)
        while (
            settling_gpus(self._alone, observation, leftovers, ends=self._ends_processes)
            and time.monotonic() < until
        ):
            time.sleep(SCAN_INTERVAL_S)
            observation, leftovers = self._scan_held_gpus()
        for gpu in gpus_to_quarantine(
            self._alone, observation, leftovers, ends=self._ends_processes
        ):
            self._quarantine(gpu)
        self._report(one for one in leftovers if one.of_job or one.gpu.uuid in observation.in_use)
        return self._scan

    def _scan_held_gpus(self) -> tuple[Observation, tuple[Leftover, ...]]:
        """Scan, and find the leftovers among the processes on the GPUs that the job held."""
        self._scan, self._first_scan = self._first_scan or self._hook.probe.start(), None
        observation = self._scan.observe()
        gpus = [gpu for gpu in observation.scan.gpus if gpu.uuid in self._held]
        pids = {process.pid for gpu in gpus for process in processes_to_end(gpu, self._usage)}
        ticks = {pid: process_start_ticks(pid) for pid in pids}
        started = {pid: at for pid, at in ticks.items() if at is not None}
        leftovers = find_leftovers(self._job, gpus, started, self._rights, self._usage)
        return observation, leftovers

    def _rights(self) -> ProcessRights:
        if self._known_rights is None:
            self._known_rights = process_rights_of_others(self._hook, self._view)
        return self._known_rights

    def _end_leftovers(self, leftovers: Collection[Leftover]) -> None:
        """End the processes that a second scan still finds to be the job's."""
        pids = {one.process.pid for one in leftovers if not one.exemption}
        with ProcessTerminator(pids) as processes:
            self._known_rights = None
            _, again = self._scan_held_gpus()
            targets = {one.process.pid: one for one in again if not one.exemption}
            alive = processes.terminate(targets, self._hook.config.slurm.kill_grace_s)
        for pid in sorted(pids & targets.keys()):
            what = "does not end" if pid in alive else "ended"
            self._log_leftover(targets[pid], what, "the job left it there")

    def _report(self, leftovers: Iterable[Leftover]) -> None:
        for one in leftovers:
            self._log_leftover(one, "stays", one.exemption or "epilog.leftovers is report")

    def _log_leftover(self, one: Leftover, what: str, why: str) -> None:
        process = one.process
        self._log_decision(
            f"PID {process.pid} ({process.name or 'unknown process'}) of"
            f" {process.user or 'an unknown user'} on GPU {one.gpu.display_index} ({one.gpu.uuid})"
            f" {what}",
            why,
        )

    def _log_decision(self, what: str, why: str) -> None:
        self._hook.actions.log_decision(self._record.owner.job_id, HookDecision(what, why))

    def _quarantine(self, gpu: GpuReading) -> None:
        reason = quarantine_reason(gpu, self._record.owner.job_id, self._job.user)
        self._ledger.quarantine(self._hook.job.node, gpu.uuid, reason, QUARANTINED_BY_EPILOG)
        self._log_decision(f"GPU {gpu.display_index} ({gpu.uuid}) is quarantined", reason)
