"""Handle a job's start: scan and reserve its GPUs; if they are refused, policies decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from canhazgpu.allocation.refusal import Refusal
from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import VoidGrantError
from canhazgpu.ledger.journal_entries import PROLOG
from canhazgpu.schedulers.slurm.hook.ended_jobs import release_ended_jobs
from canhazgpu.schedulers.slurm.hook.failure import hook_error_text
from canhazgpu.schedulers.slurm.hook.node_context import JobHook
from canhazgpu.schedulers.slurm.hook.run import run_hook
from canhazgpu.schedulers.slurm.hook.slurmd_groups import record_slurmd_groups
from canhazgpu.schedulers.slurm.hook.startup import StartedHook
from canhazgpu.schedulers.slurm.job_start.allocation import JobAllocation, scheduler_picks_devices

LATEST_ATTEMPT = 2**31
"""A number above every attempt of a job."""


def handle_job_start(environ: Mapping[str, str], started: StartedHook | Exception) -> int:
    """Handle one job start; returns the exit status for slurmd, see `run_hook`."""
    return run_hook(environ, start_or_requeue, PROLOG, started)


def start_or_requeue(hook: JobHook) -> None:
    """Start the job with its GPUs; after a failure, apply the policy for failures."""
    hook.import_store_client()
    try:
        with hard_deadline(hook.time_left_s):
            start_job(hook)
    except VoidGrantError as exc:
        hook.actions.log(f"job {hook.job.owner.job_id}: nothing is reserved for it: {exc}")
    except Exception as exc:  # no failure may drain the node
        from canhazgpu.schedulers.slurm.job_start.scheduler_actions import apply_fault_policy  # noqa: PLC0415 - as below

        apply_fault_policy(hook, hook_error_text(exc))


def start_job(hook: JobHook) -> None:
    """Reserve the job's GPUs and record them, or resolve the conflict."""
    if hook.config_fault is not None:
        raise hook.config_fault
    scheduler_picks = scheduler_picks_devices(
        hook.config.slurm.assignment, hook.node_conf.constrains_devices
    )
    scan = hook.probe.start()
    owner = hook.job.owner
    id_reused_from = hook.records.begin(
        owner, hook.job.user, hook.boot_id, hook.job.positions, hook.job.run_id
    )
    record_slurmd_groups(hook)
    ledger = hook.ledger()
    allocator = hook.allocator(ledger)
    release_ended_jobs(allocator, hook.records, hook.records.ended())
    if hook.is_retry:
        # Nothing of the job runs yet, so all that its killed prolog reserved is released. That
        # prolog may not have validated its grant, nor released what another job of this id held.
        allocator.release_job(replace(owner, attempt=LATEST_ATTEMPT), "its prolog was killed")
    if id_reused_from is not None:
        allocator.release_job(id_reused_from, "its number was given to another job")
    if owner.attempt > 0:
        earlier = replace(owner, attempt=owner.attempt - 1)
        allocator.release_job(earlier, "superseded by a later attempt")
    if hook.job.share is not None or hook.node_conf.shared_gres:
        from canhazgpu.schedulers.slurm.job_start.job_share import with_share  # noqa: PLC0415 - few nodes share GPUs

        hook = with_share(hook)
    allocation = JobAllocation(hook, ledger, allocator, scheduler_picks=scheduler_picks)
    outcome = allocation.attempt(scan)
    if isinstance(outcome, Refusal):
        from canhazgpu.schedulers.slurm.job_start.conflict_resolution import ConflictResolution  # noqa: PLC0415 - most jobs need none of it

        ConflictResolution(allocation, outcome).resolve()
    else:
        allocation.accept(outcome)
