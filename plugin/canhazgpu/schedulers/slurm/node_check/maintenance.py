"""One check of the node: release ended jobs, publish the scan, lift quarantines, undrain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from canhazgpu.allocation.allocator import GpuAllocator
from canhazgpu.errors import CanhazgpuError, InputError, SchedulerError, StoreError, error_text
from canhazgpu.ledger.local.book.book import is_job_owner
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.local.jobs.job_record import JobRecord
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import NodeView
from canhazgpu.logfmt import log_line
from canhazgpu.node.drain_record import DrainRecord
from canhazgpu.node.hook_caller import HookCaller
from canhazgpu.node.system_log import write_syslog
from canhazgpu.probe.accounting.enabled import accounting_is_enabled
from canhazgpu.probe.port import PendingScan
from canhazgpu.schedulers.slurm.control.undrain import undrain_if_ours
from canhazgpu.schedulers.slurm.hook.ended_jobs import QUARANTINED_BY_EPILOG, release_ended_jobs
from canhazgpu.schedulers.slurm.hook.node_context import NodeContext
from canhazgpu.schedulers.slurm.hook.write_groups_record import record_slurmd_groups
from canhazgpu.schedulers.slurm.node_check.job_names import ask_job_names
from canhazgpu.schedulers.slurm.node_check.lost_jobs import jobs_to_note
from canhazgpu.schedulers.slurm.node_check.slurmd_query import ask_slurmd_if_needed

UNQUARANTINED_BY = "health check"
JOB_ABSENT_REASON = "job no longer on the node"


class NodeCheck:
    """One run of the health check.

    `decisions` are the log lines of what it did, `jobs` what it says of single jobs: each with
    ``job_id``, ``user`` and ``what``, for `canhazgpu explain`.
    """

    def __init__(self, context: NodeContext, caller: HookCaller) -> None:
        self._context = context
        self._caller = caller
        self.decisions: list[str] = []
        self.jobs: list[dict[str, Any]] = []

    def run(self) -> None:
        """Check the node. Raises what prevents the check."""
        context = self._context
        record_slurmd_groups(context)
        scan = context.probe.start()
        ledger = context.ledger()
        allocator = GpuAllocator(context.node, context.liveness_context(), context.probe, ledger)
        live_view = allocator.reaped_view()
        if ledger.released:
            reaped = [gpu for gpus in ledger.released.values() for gpu in gpus]
            self._log_decision("reaped", gpus=reaped)
        view = self._release_absent_jobs(ledger, live_view)
        self._publish(ledger, scan, view)
        release_ended_jobs(allocator, context.records, context.records.ended())
        self._note_lost_jobs(ledger, view)
        self._ask_slurmd(scan)
        self._switch_accounting_on()

    def _switch_accounting_on(self) -> None:
        context = self._context
        if accounting_is_enabled(context.config.validation):
            from canhazgpu.probe.accounting.job_use import switch_on  # noqa: PLC0415 - few sites want it

            switch_on(context.node, context.config.validation, context.state_dir)

    def _note_lost_jobs(self, ledger: FallbackLedger, view: NodeView) -> None:
        """Note jobs that were here and of which only Slurm still knows."""
        try:
            lost = jobs_to_note(self._context, ledger, view)
        except (StoreError, SchedulerError, OSError) as exc:
            # The next check asks again.
            fault = error_text(exc) if isinstance(exc, CanhazgpuError) else str(exc)
            write_syslog(log_line("lost-jobs-unknown", node=self._context.node, reason=fault))
            return
        for one in lost:
            self.jobs.append(one)
            self._log_decision("job-unknown", job=one["job_id"], user=one["user"])

    def _ask_slurmd(self, scan: PendingScan) -> None:
        """Keep slurmd's own reading of the GPUs; jobs do without it where the files suffice."""
        seen = scan.observe().scan
        if seen.fault is not None:
            return  # an answer holds for the GPUs that the driver shows
        try:
            fault = ask_slurmd_if_needed(self._context, seen.gpus, self._caller.pid)
        except (CanhazgpuError, OSError) as exc:
            fault = error_text(exc) if isinstance(exc, CanhazgpuError) else str(exc)
        if fault:
            write_syslog(log_line("slurmd-not-asked", node=self._context.node, reason=fault))

    def _publish(self, ledger: FallbackLedger, scan: PendingScan, view: NodeView) -> None:
        observation = scan.observe()
        if not observation.scan.gpus and not self._should_have_gpus(view):
            return
        # Publishing also renews the heartbeats of these jobs: one round trip for all.
        ledger.publish_scan(observation, {owner for owner, _ in self._job_owners(view)})
        self._keep_indexes(ledger, view)
        self._lift_quarantines(ledger, observation, view)
        self._undrain(observation, view)

    def _keep_indexes(self, ledger: FallbackLedger, view: NodeView) -> None:
        """Publish the jobs' names, and bring the node's entries in the indexes up to date.

        What fails is tried again by the next check.
        """
        context = self._context
        try:
            prefix = context.node_conf.job_owner_prefix
            if named := ask_job_names(context.commands, view, prefix):
                ledger.name_jobs(context.node, named)
            ledger.keep_indexes(context.node)
        except (StoreError, SchedulerError) as exc:
            reason = error_text(exc)
            write_syslog(log_line("indexes-not-kept", node=self._context.node, reason=reason))

    def _release_absent_jobs(self, ledger: FallbackLedger, view: NodeView) -> NodeView:
        """Release the GPUs of jobs that are not on the node any more, and end their records."""
        running = self._context.records.running()
        own = [one for one in running if self._is_own(one.owner)]
        owners = dict(self._job_owners(view))
        # Asked last: a job that starts meanwhile is neither in the view nor in the records.
        absent = self._context.presence.absent(
            {*owners.values(), *(one.owner.job_id for one in own)}
        )
        for record in running:
            is_absent = record in own and record.owner.job_id in absent
            if is_absent or self._is_of_earlier_boot(record):
                self._context.records.close(record.owner)
                self._note_missing_epilog(record)
                self._log_decision(
                    "epilog-missing", job=record.owner.job_id, owner=record.owner.token
                )
        latest = {record.owner.job_id: record.owner for record in own}
        released = [
            uuid
            for owner, job_id in owners.items()
            for uuid in self._release_if_absent(ledger, owner, job_id in absent, latest.get(job_id))
        ]
        return ledger.read_nodes([self._context.node])[0] if released else view

    def _note_missing_epilog(self, record: JobRecord) -> None:
        what = (
            "the node has rebooted since it was here"
            if self._is_of_earlier_boot(record)
            else "it is no longer on the node"
        )
        self.jobs.append(
            {
                "job_id": record.owner.job_id,
                "owner": record.owner.token,
                "user": record.user,
                "what": f"{what}, and no epilog of attempt {record.owner.attempt} ran",
            }
        )

    def _release_if_absent(
        self, ledger: FallbackLedger, owner: str, is_absent: bool, latest: JobOwner | None
    ) -> list[str]:
        if latest is not None and latest.token != owner and latest.covers(owner):
            reason = "superseded by a later attempt"
        elif is_absent:
            reason = JOB_ABSENT_REASON
        else:
            return []
        gpus = ledger.release(self._context.node, owner, reason)
        self._log_decision("released", owner=owner, gpus=gpus, reason=reason)
        return gpus

    def _is_own(self, owner: JobOwner) -> bool:
        """Tell whether the job is of this cluster; its Slurm knows no others."""
        return owner.token.startswith(self._context.node_conf.job_owner_prefix)

    def _is_of_earlier_boot(self, record: JobRecord) -> bool:
        boots = (record.boot_id, self._context.boot_id)
        return None not in boots and boots[0] != boots[1]

    def _job_owners(self, view: NodeView) -> Iterator[tuple[str, str]]:
        prefix = self._context.node_conf.job_owner_prefix
        for one in view.all_reservations():
            claim = one.claim
            if is_job_owner(claim.owner) and claim.owner.startswith(prefix) and claim.job_id:
                yield claim.owner, claim.job_id

    def _should_have_gpus(self, view: NodeView) -> bool:
        """Tell whether GPUs are known of a node whose scan shows none."""
        known = view.scan is not None and bool(view.scan.gpus)
        if known or view.reservations:
            return True
        try:
            return self._context.node_conf.gpu_count is not None
        except InputError:
            return True  # a line about this node's GPUs that cannot be read

    def _lift_quarantines(
        self, ledger: FallbackLedger, observation: Observation, view: NodeView
    ) -> None:
        """Lift the quarantines that an epilog set on GPUs that are free now."""
        clear = observation.scan.by_uuid().keys() - _unavailable_gpus(observation)
        for gpu, one in view.quarantines.items():
            if one.by == QUARANTINED_BY_EPILOG and gpu in clear and gpu not in view.reservations:
                ledger.unquarantine(self._context.node, gpu, UNQUARANTINED_BY)
                self._log_decision("unquarantined", gpu=gpu, reason=one.reason)

    def _undrain(self, observation: Observation, view: NodeView) -> None:
        context = self._context
        clean = observation.scan.fault is None and not (
            _unavailable_gpus(observation) - view.reservations.keys()
        )
        try:
            reason = undrain_if_ours(
                context.node, DrainRecord(context.state_dir), context.commands, clean=clean
            )
        except SchedulerError as exc:
            # The next check asks again. This is no failure of this node.
            write_syslog(log_line("undrain-failed", node=context.node, reason=error_text(exc)))
            return
        if reason:
            self._log_decision("undrained", reason=reason)

    def _log_decision(self, event: str, **facts: object) -> None:
        self.decisions.append(log_line(event, node=self._context.node, **facts))


def _unavailable_gpus(observation: Observation) -> frozenset[str]:
    return observation.in_use | observation.unknown | observation.unhealthy.keys()
