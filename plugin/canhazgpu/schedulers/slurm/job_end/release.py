"""At a job's end: clear its GPUs, release what this attempt holds, and publish the GPUs."""

from __future__ import annotations

from collections.abc import Mapping

from canhazgpu.conflict.leftovers import CLEAN_UP_TIME_SHARE
from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import NodeStateError, error_text
from canhazgpu.ledger.journal_entries import EPILOG
from canhazgpu.ledger.local.job_records import JobRecord
from canhazgpu.ledger.port import Ledger
from canhazgpu.probe.port import PendingScan
from canhazgpu.schedulers.slurm.hook.run import (
    JobHook,
    hook_error_text,
    release_ended_jobs,
    run_hook,
)


def handle_job_end(environ: Mapping[str, str]) -> int:
    """Handle one job end; returns the exit status for slurmd, see `run_hook`."""
    return run_hook(environ, end_job, EPILOG)


def end_job(hook: JobHook) -> None:
    """Clear and release the job's GPUs; what fails is told the administrator."""
    job_id = hook.job.owner.job_id
    recorded = hook.records.has_readable(job_id)
    if not hook.job.positions and not hook.records.exists(job_id):
        return
    time_s = hook.time_left_s
    ledger = hook.ledger()
    looked = None
    try:
        with hard_deadline(time_s * CLEAN_UP_TIME_SHARE):
            record, recorded = _mark_ended(hook, recorded)
            if record is not None:
                hook.hook_log.ended = record.owner
            if record is not None and hook.config_fault is None:
                looked = _clean_up(hook, ledger, record, time_s * CLEAN_UP_TIME_SHARE)
    except Exception as exc:  # whatever it is, the GPUs are to be released all the same
        hook.actions.log(f"job {job_id}: no clean-up of its GPUs: {hook_error_text(exc)}")
    try:
        with hard_deadline(time_s * (1 - CLEAN_UP_TIME_SHARE)):
            release_gpus(hook, ledger, looked, recorded=recorded)
    except Exception as exc:  # whatever it is, it is no reason to drain the node
        hook.actions.log(f"job {job_id}: GPUs not released: {hook_error_text(exc)}")


def release_gpus(
    hook: JobHook, ledger: Ledger, looked: PendingScan | None, *, recorded: bool
) -> None:
    """Release the attempt that ended, by the node's record of it, and publish the last look.

    Where the ledger cannot be reached now, the record was marked, and the next hook on this node
    makes the release good. Without a record that can be read and marked, the job's number decides.
    """
    if hook.config_fault is not None:
        raise hook.config_fault
    service = hook.service(ledger)
    if recorded:
        release_ended_jobs(service, hook.records, hook.records.ended())
    else:
        service.release_job(hook.job.owner, "job ended")
    if looked is None:
        service.scan_and_publish()
    else:
        ledger.publish_scan(looked.observe())


def _clean_up(
    hook: JobHook, ledger: Ledger, record: JobRecord, time_s: float
) -> PendingScan | None:
    from canhazgpu.schedulers.slurm.job_end.clean_up import GpuCleanUp  # noqa: PLC0415 - not for jobs without GPUs

    return GpuCleanUp(hook, ledger, record, time_s).run()


def _mark_ended(hook: JobHook, recorded: bool) -> tuple[JobRecord | None, bool]:
    """Mark the job's record, the first thing of all.

    Returns the record of the attempt that is thereby over, None where the epilog is an earlier
    attempt's, and whether the record can be relied on.
    """
    job_id = hook.job.owner.job_id
    try:
        # An owed epilog may have been lost: then this one is the last, and Slurm knows it.
        last = hook.records.owes_epilogs(job_id) and hook.actions.has_stopped_running(job_id)
        return hook.records.end(job_id, last=last), recorded
    except NodeStateError as exc:
        hook.actions.log(f"job {job_id}: {error_text(exc)}")
        return None, False
