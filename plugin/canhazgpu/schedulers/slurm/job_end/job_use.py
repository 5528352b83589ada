"""What a job made of its GPUs: read beside the epilog's work, told after the GPUs are released."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from canhazgpu.gpu.scan import GpuReading
from canhazgpu.gpu.use_facts import UseFacts
from canhazgpu.ledger.local.jobs.job_record import JobRecord
from canhazgpu.node.boot_clock import age_of_ticks_s
from canhazgpu.probe.accounting.enabled import accounting_is_enabled
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.hook.node_context import JobHook

if TYPE_CHECKING:
    from canhazgpu.gpu.accounting import GpuUse
    from canhazgpu.probe.accounting.job_use import PendingUse

NO_REPORT = "off"
"""The value of slurm.job_report with which Slurm is told nothing."""


class JobUse:
    """The use of one job's GPUs; `idle_s` is for how long scans found each unused."""

    def __init__(self, hook: JobHook, record: JobRecord) -> None:
        self._hook = hook
        self._record = record
        self._held_s = age_of_ticks_s(record.began_ticks or 0) or 0.0
        self._held_since = time.time() - self._held_s
        self.idle_s: Mapping[str, float] = {}
        self._pending: PendingUse | None = None
        # Of a shared GPU the driver does not tell which job a process was in.
        can_tell = accounting_is_enabled(hook.config.validation) and not record.share
        if record.gpus and can_tell and record.began_ticks:
            from canhazgpu.probe.accounting.job_use import PendingUse  # noqa: PLC0415 - few sites want it

            gpus = [gpu.uuid for gpu in record.gpus]
            self._pending = PendingUse(hook.config.validation, hook.state_dir, gpus)

    def tell(self) -> None:
        """Note the use in the hook's log."""
        uses: dict[str, GpuUse] = {}
        if self._pending is not None:
            uses = self._pending.result(self._held_since, self._others())
        seen = self._seen()
        facts = UseFacts()
        for gpu in self._record.gpus:
            reading, use = seen.get(gpu.uuid), uses.get(gpu.uuid)
            index = reading.display_index if reading else str(gpu.index)
            idle_s = self.idle_s.get(gpu.uuid)
            if use is not None:
                facts.add_by_driver(index, use, reading, self._held_s, idle_s or 0.0)
            elif idle_s is not None:
                facts.add_by_scans(index, self._held_s, idle_s)
        self._hook.hook_log.use = facts.fact()
        if self._hook.config.slurm.job_report != NO_REPORT:
            self._leave_report(self._hook.hook_log.use, seen)

    def _leave_report(self, told: Mapping[str, Any], seen: Mapping[str, GpuReading]) -> None:
        """Leave for the health check what Slurm is to be told: it takes nothing of it yet."""
        from canhazgpu.schedulers.slurm.job_report.comment import use_line  # noqa: PLC0415 - few sites want it
        from canhazgpu.schedulers.slurm.job_report.pending_reports import PendingReports  # noqa: PLC0415

        line = use_line(told, {one.display_index: one.name for one in seen.values()})
        if line:
            try:
                PendingReports(self._hook.state_dir).add(self._record.owner, time.time(), line)
            except OSError as exc:
                job_id = self._record.owner.job_id
                self._hook.actions.log(f"job {job_id}: no report of its use: {exc.strerror}")

    def _seen(self) -> dict[str, GpuReading]:
        last = self._hook.hook_log.last_observation
        return last.scan.by_uuid() if last is not None else {}

    def _others(self) -> dict[str, list[int]]:
        """Return the processes on each GPU that are known not to be the job's."""
        own, uid = f"{names.SCHEDULER_TYPE}:{self._record.owner.job_id}", self._hook.job.uid
        return {
            uuid: [
                one.pid
                for one in reading.processes
                if (one.job != own if one.job else one.uid not in (None, uid))
            ]
            for uuid, reading in self._seen().items()
        }


class _NoUse:
    """In place of `JobUse` where the site does not want it."""

    idle_s: Mapping[str, float] = {}

    def tell(self) -> None:
        """Tell nothing."""


def read_job_use(hook: JobHook, record: JobRecord) -> JobUse | _NoUse:
    """Begin to read what the job made of its GPUs."""
    reports = hook.config.slurm.job_report != NO_REPORT
    wanted = reports or accounting_is_enabled(hook.config.validation)
    return JobUse(hook, record) if wanted else _NoUse()
