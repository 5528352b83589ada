"""Handle a job's start: scan and reserve its GPUs; if they are refused, policies decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from canhazgpu.allocation.refusal import Refusal
from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import NodeStateError, VoidGrantError
from canhazgpu.ledger.journal_entries import PROLOG
from canhazgpu.node.hook_caller import OWN_PROCESS, HookCaller
from canhazgpu.node.job_lock import job_lock
from canhazgpu.schedulers.slurm.hook.attempt import StartedAttempt, begin_attempt
from canhazgpu.schedulers.slurm.hook.ended_jobs import release_ended_jobs
from canhazgpu.schedulers.slurm.hook.failure import hook_error_text
from canhazgpu.schedulers.slurm.hook.node_context import JobHook
from canhazgpu.schedulers.slurm.hook.run import HookOutcome, run_hook
from canhazgpu.schedulers.slurm.hook.startup import StartedHook
from canhazgpu.schedulers.slurm.hook.write_groups_record import record_slurmd_groups
from canhazgpu.schedulers.slurm.job_start.allocation import JobAllocation, scheduler_picks_devices

LATEST_ATTEMPT = 2**31
"""A number above every attempt of a job."""
GIVE_BACK_S = 5.0


def handle_job_start(
    environ: Mapping[str, str],
    started: StartedHook | Exception,
    caller: HookCaller = OWN_PROCESS,
) -> HookOutcome:
    """Handle one job start; see `run_hook`."""

    def act(hook: JobHook) -> None:
        start_or_requeue(hook, environ, caller)

    return run_hook(environ, act, PROLOG, started)


def start_or_requeue(
    hook: JobHook,
    environ: Mapping[str, str],
    caller: HookCaller,
    handle_fault: Callable[[JobHook, str], None] | None = None,
) -> None:
    """Start the job with its GPUs; after a failure, apply the policy for failures.

    The attempt is on record before the caller is asked, and nothing else is done before.
    `handle_fault` takes the place of the policy for failures; it gets the reason.
    """
    attempt = _begin(hook, environ, caller)
    if not caller.confirms(hook.longest_s):
        return
    hook.import_store_client()
    try:
        if isinstance(attempt, Exception):
            raise attempt
        hook = replace(hook, attempt=attempt)
        with hard_deadline(hook.time_left_s), job_lock(hook.state_dir, hook.job.owner.job_id):
            hook.raise_if_fenced()
            start_job(hook, attempt)
    except VoidGrantError as exc:
        _give_back(hook, exc)
    except Exception as exc:  # no failure may drain the node
        if handle_fault is not None:
            handle_fault(hook, hook_error_text(exc))
            return
        from canhazgpu.schedulers.slurm.job_start.scheduler_actions import apply_fault_policy  # noqa: PLC0415 - as below

        if apply_fault_policy(hook, hook_error_text(exc)):
            _note_decision(hook)


def _begin(
    hook: JobHook, environ: Mapping[str, str], caller: HookCaller
) -> StartedAttempt | Exception:
    """Record the attempt; an error is returned, for it is told after the caller was asked."""
    try:
        if hook.config_fault is not None:
            raise hook.config_fault
        with hard_deadline(hook.time_left_s):
            return begin_attempt(
                hook.records, hook.state_dir, hook.job, hook.boot_id, environ, caller
            )
    except Exception as exc:
        return exc


def _note_decision(hook: JobHook) -> None:
    """Note that a policy decided; where that fails, a task of the job has it applied again."""
    try:
        hook.records.decide(hook.job.owner)
    except NodeStateError as exc:
        hook.actions.log(str(exc))


def _give_back(hook: JobHook, why: VoidGrantError) -> None:
    """Release what the attempt got before it ended; it gets nothing, and no action is due."""
    owner = hook.job.owner
    hook.actions.log(f"job {owner.job_id}: nothing is granted: {why}")
    ledger = hook.hook_log.ledger
    if ledger is None or ledger.last_answer is None:
        return
    try:
        with hard_deadline(GIVE_BACK_S):
            hook.allocator(ledger).release(owner.token, "its attempt ended")
    except Exception as exc:
        hook.actions.log(f"job {owner.job_id}: GPUs not released: {hook_error_text(exc)}")


def start_job(hook: JobHook, attempt: StartedAttempt) -> None:
    """Reserve the job's GPUs and record them, or resolve the conflict."""
    scheduler_picks = scheduler_picks_devices(
        hook.config.slurm.assignment, hook.node_conf.constrains_devices
    )
    scan = hook.probe.start()
    owner = hook.job.owner
    record_slurmd_groups(hook)
    ledger = hook.ledger()
    allocator = hook.allocator(ledger)
    release_ended_jobs(allocator, hook.records, hook.records.ended())
    if hook.is_retry:
        # Nothing of the job runs yet, so all that its killed prolog reserved is released. That
        # prolog may not have validated its grant, nor released what another job of this id held.
        allocator.release_job(replace(owner, attempt=LATEST_ATTEMPT), "its prolog was killed")
    if attempt.id_reused_from is not None:
        allocator.release_job(attempt.id_reused_from, "its number was given to another job")
    if owner.attempt > 0:
        earlier = replace(owner, attempt=owner.attempt - 1)
        allocator.release_job(earlier, "superseded by a later attempt")
    if hook.job.share is not None or hook.node_conf.shared_gres:
        from canhazgpu.schedulers.slurm.job_start.job_share import with_share  # noqa: PLC0415 - few nodes share GPUs

        hook = with_share(hook)
    allocation = JobAllocation(hook, ledger, allocator, scheduler_picks=scheduler_picks)
    outcome = allocation.attempt(scan)
    hook.raise_if_fenced()
    if isinstance(outcome, Refusal):
        from canhazgpu.schedulers.slurm.job_start.conflict_resolution import ConflictResolution  # noqa: PLC0415 - most jobs need none of it

        if ConflictResolution(allocation, outcome).resolve():
            _note_decision(hook)
    else:
        allocation.accept(outcome)
