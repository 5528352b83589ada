"""Handle a job's end: clean up its GPUs, release them, and publish the scan."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from canhazgpu.conflict.leftovers import CLEAN_UP_TIME_SHARE
from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import DeadlineError, NodeStateError, error_text
from canhazgpu.ledger.journal_entries import EPILOG
from canhazgpu.ledger.local.jobs.job_record import JobRecord
from canhazgpu.ledger.port import Ledger
from canhazgpu.node.hook_caller import OWN_PROCESS, HookCaller
from canhazgpu.node.job_lock import job_lock
from canhazgpu.probe.port import PendingScan
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.hook.ended_attempts import EndedAttempts
from canhazgpu.schedulers.slurm.hook.ended_jobs import release_ended_jobs
from canhazgpu.schedulers.slurm.hook.failure import hook_error_text
from canhazgpu.schedulers.slurm.hook.log import EARLIER_ATTEMPT, UNKNOWN_ATTEMPT
from canhazgpu.schedulers.slurm.hook.node_context import JobHook
from canhazgpu.schedulers.slurm.hook.run import HookOutcome, run_hook
from canhazgpu.schedulers.slurm.hook.startup import (
    OPEN_DEADLINE_S,
    ScanSources,
    scan_in_child,
)
from canhazgpu.schedulers.slurm.job_end.job_use import read_job_use

LOCK_TIME_SHARE = 0.2
"""Share of an epilog's time for a prolog of the job that is under way; part of the clean-up's."""


def handle_job_end(
    environ: Mapping[str, str],
    caller: HookCaller = OWN_PROCESS,
    scan_sources: ScanSources = scan_in_child,
) -> HookOutcome:
    """Handle one job end; see `run_hook`."""

    def act(hook: JobHook) -> None:
        end_job(hook, environ.get(names.HOOK_RUN, ""), caller)

    return run_hook(environ, act, EPILOG, None, scan_sources)


def end_job(hook: JobHook, epilog: str, caller: HookCaller) -> None:
    """Clean up and release the job's GPUs; log what fails. `epilog` is the run of this hook."""
    job_id = hook.job.owner.job_id
    exists, recorded = _look_up_record(hook)
    if not hook.job.positions and not exists:
        return
    if not caller.confirms(hook.longest_s):
        return
    from canhazgpu.schedulers.slurm.job_end.clean_up import GpuCleanUp  # noqa: PLC0415 - not for jobs without GPUs

    hook.import_store_client()
    time_s = hook.time_left_s
    ledger = None if hook.config_fault else hook.ledger()
    last_scan, use = None, None
    with contextlib.ExitStack() as job:
        try:
            with hard_deadline(time_s * CLEAN_UP_TIME_SHARE):
                record, recorded = _mark_ended(hook, recorded, epilog)
                _note_attempt(hook, record)
                if record is not None:
                    _wait_for_job_start(hook, time_s * LOCK_TIME_SHARE, job)
                if record is not None and ledger is not None:
                    clean_up_s = time_s * (CLEAN_UP_TIME_SHARE - LOCK_TIME_SHARE)
                    use = read_job_use(hook, record)
                    clean_up = GpuCleanUp(hook, ledger, record, clean_up_s)
                    use.idle_s = clean_up.idle_s()
                    last_scan = clean_up.run()
        except Exception as exc:  # the GPUs are released in any case
            hook.actions.log(f"job {job_id}: no clean-up of its GPUs: {hook_error_text(exc)}")
        try:
            with hard_deadline(time_s * (1 - CLEAN_UP_TIME_SHARE)):
                release_gpus(hook, ledger or hook.ledger(), last_scan, recorded=recorded)
        except Exception as exc:  # no failure may drain the node
            hook.actions.log(f"job {job_id}: GPUs not released: {hook_error_text(exc)}")
    if use is not None:
        use.tell()


def _wait_for_job_start(hook: JobHook, wait_s: float, job: contextlib.ExitStack) -> None:
    """Wait for the end of a prolog of the job that is under way, and exclude another meanwhile.

    The record says that the attempt has ended, so a prolog that does not end grants nothing.
    """
    job_id = hook.job.owner.job_id
    try:
        with hard_deadline(wait_s):
            job.enter_context(job_lock(hook.state_dir, job_id))
    except (DeadlineError, NodeStateError) as exc:
        hook.actions.log(f"job {job_id}: another hook of it is still under way: {exc}")


def _look_up_record(hook: JobHook) -> tuple[bool, bool]:
    """Return whether the job has a record here, and whether it is readable; never waits long."""
    job_id, cluster = hook.job.owner.job_id, hook.job.owner.cluster
    try:
        with hard_deadline(OPEN_DEADLINE_S, of_running=True):
            exists = hook.records.exists(job_id, cluster)
            return exists, hook.records.has_readable(job_id, cluster)
    except DeadlineError as exc:
        hook.actions.log(f"job {job_id}: its record cannot be read: {exc}")
        return True, False


def _note_attempt(hook: JobHook, record: JobRecord | None) -> None:
    """Note for the log which attempt has ended: Slurm may have given the next one's number."""
    if record is not None:
        hook.hook_log.ended_owner = record.owner
        hook.hook_log.recorded_gpus = tuple(gpu.uuid for gpu in record.gpus)
    elif hook.records.exists(hook.job.owner.job_id, hook.job.owner.cluster):
        hook.hook_log.attempt = EARLIER_ATTEMPT
    elif hook.job.owner.attempt > 0:
        hook.hook_log.attempt = UNKNOWN_ATTEMPT


def release_gpus(
    hook: JobHook, ledger: Ledger, last_scan: PendingScan | None, *, recorded: bool
) -> None:
    """Release the attempt that ended, by the node's record of it, and publish the last scan.

    If the ledger cannot be reached, the record stays marked as ended, and the next hook on this
    node releases the attempt. If the record could not be read or marked, the job id identifies
    what is released.
    """
    allocator = hook.allocator(ledger)
    if recorded:
        release_ended_jobs(allocator, hook.records, hook.records.ended())
    else:
        allocator.release_job(hook.job.owner, "job ended")
    if last_scan is None:
        allocator.scan_and_publish()
    else:
        ledger.publish_scan(last_scan.observe())


def _mark_ended(hook: JobHook, recorded: bool, epilog: str) -> tuple[JobRecord | None, bool]:
    """Mark the job's record as ended, before all else.

    Returns the record of the attempt that ended, None if the epilog is an earlier attempt's, and
    whether the record is reliable.
    """
    job_id, cluster = hook.job.owner.job_id, hook.job.owner.cluster
    try:
        # An earlier attempt's epilog may never have run; then Slurm says that this one is the last.
        run_id = hook.job.run_id
        owed = hook.records.owes_epilogs(job_id, run_id, cluster=cluster)
        last = owed and hook.actions.has_stopped_running(job_id)
        ended = hook.records.end(job_id, cluster=cluster, last=last, run_id=run_id, epilog=epilog)
        if ended is not None:
            _note_end(hook, ended)
        return ended, recorded
    except NodeStateError as exc:
        hook.actions.log(f"job {job_id}: {error_text(exc)}")
        return None, False


def _note_end(hook: JobHook, ended: JobRecord) -> None:
    """Note the end for a prolog that gets to its work after the record is removed."""
    try:
        EndedAttempts(hook.state_dir).note(ended.owner, ended.run_id)
    except OSError as exc:
        hook.actions.log(f"job {ended.owner.job_id}: its end is not noted: {exc.strerror}")
