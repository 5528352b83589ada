"""At a job's start: reserve its GPUs after a look at them; where that fails, policies decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from canhazgpu.allocation.refusal import Refusal
from canhazgpu.deadline import hard_deadline
from canhazgpu.ledger.journal_entries import PROLOG
from canhazgpu.schedulers.slurm.hook.run import (
    JobHook,
    hook_error_text,
    release_ended_jobs,
    run_hook,
)
from canhazgpu.schedulers.slurm.hook.startup import StartedHook
from canhazgpu.schedulers.slurm.job_start.allocation import JobAllocation, scheduler_picks_devices

LATEST_ATTEMPT = 2**31
"""Later than any attempt of a job that the node may know of."""


def handle_job_start(environ: Mapping[str, str], begun: StartedHook | Exception) -> int:
    """Handle one job start; returns the exit status for slurmd, see `run_hook`."""
    return run_hook(environ, start_or_requeue, PROLOG, begun)


def start_or_requeue(hook: JobHook) -> None:
    """Start the job with its GPUs, or do with it what the policies say."""
    try:
        with hard_deadline(hook.time_left_s):
            start_job(hook)
    except Exception as exc:  # whatever it is, it is no reason to drain the node
        from canhazgpu.schedulers.slurm.job_start.scheduler_actions import apply_fault_policy  # noqa: PLC0415 - as below

        apply_fault_policy(hook, hook_error_text(exc))


def start_job(hook: JobHook) -> None:
    """Reserve the job's GPUs and record them, or resolve the conflict."""
    if hook.config_fault is not None:
        raise hook.config_fault
    by_scheduler = scheduler_picks_devices(
        hook.config.slurm.assignment, hook.node_conf.constrains_devices
    )
    scan = hook.probe.start()
    owner = hook.job.owner
    namesake = hook.records.begin(owner, hook.job.user, hook.boot_id, hook.job.positions)
    ledger = hook.ledger()
    service = hook.service(ledger)
    release_ended_jobs(service, hook.records, hook.records.ended())
    if hook.is_retry:
        # Nothing of the job runs yet. What the killed run had begun is not known to be in order:
        # whether it looked at what was granted, and released what another job of this number held.
        service.release_job(replace(owner, attempt=LATEST_ATTEMPT), "its prolog was killed")
    if namesake is not None:
        service.release_job(namesake, "its number was given to another job")
    if owner.attempt > 0:
        earlier = replace(owner, attempt=owner.attempt - 1)
        service.release_job(earlier, "superseded by a later attempt")
    way = JobAllocation(hook, ledger, service, by_scheduler=by_scheduler)
    outcome = way.attempt(scan)
    if isinstance(outcome, Refusal):
        from canhazgpu.schedulers.slurm.job_start.conflict_resolution import ConflictResolution  # noqa: PLC0415 - most jobs need none of it

        ConflictResolution(way, outcome).resolve()
    else:
        way.accept(outcome)
