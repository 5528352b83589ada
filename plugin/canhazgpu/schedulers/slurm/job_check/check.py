"""Check a job that runs without a prolog: do what its prolog would have done.

Slurm starts a job without its prolog now and then, and a prolog may be killed. Who calls is the
kernel's word, and everything about the job Slurm's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack

from canhazgpu.config.schema import SlurmConfig
from canhazgpu.conflict.checked_job import CheckedJob, CheckedState
from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import CanhazgpuError, SchedulerError, error_text
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.hook_caller import CallingProcess, HookCaller
from canhazgpu.node.job_lock import job_lock
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.control.running_job import RunningJob, find_running_job
from canhazgpu.schedulers.slurm.hook.node_context import (
    LOG_MARGIN_S,
    NodeContext,
    open_node_context,
)
from canhazgpu.schedulers.slurm.hook.startup import OPEN_DEADLINE_S, ScanSources
from canhazgpu.schedulers.slurm.job_check.caller_job import job_of_process
from canhazgpu.schedulers.slurm.job_check.start import (
    AS_ITS_PROLOG,
    StartOptions,
    start_running_job,
)

CHECK_LOCK = "{}.check"
"""The lock's name for a job's checks: its tasks ask at once, and one of them has it checked."""
NO_JOB = "its process is in no job of this node's that has GPUs"


def handle_job_check(
    environ: Mapping[str, str],
    process: CallingProcess,
    caller: HookCaller,
    scan_sources: ScanSources,
) -> CheckedJob:
    """Answer a process of a job; never raises.

    Nothing is looked at before the caller confirmed, and nobody can have more than one check made
    of a job at a time.
    """
    try:
        with hard_deadline(OPEN_DEADLINE_S, of_running=True):
            context = open_node_context(environ, None, scan_sources)
        if not caller.confirms(2 * longest_s(context.config.slurm) + OPEN_DEADLINE_S):
            return refused("the caller gave up")
        if context.config_fault is not None:
            raise context.config_fault
        job_id = job_of_process(context, process)
        if not job_id:
            return refused(NO_JOB)
        return _check(context, job_id, environ, process, caller, scan_sources)
    except ProcessLookupError:
        return refused("the caller has ended")
    except CanhazgpuError as exc:
        return refused(error_text(exc))


def longest_s(slurm: SlurmConfig) -> float:
    """Return what one check takes at most, its log included."""
    return slurm.hook_deadline_s + 3 * slurm.command_timeout_s + LOG_MARGIN_S


def refused(why: str) -> CheckedJob:
    """Return that the caller gets no answer."""
    return CheckedJob(CheckedState.REFUSED, why)


def _check(
    context: NodeContext,
    job_id: str,
    environ: Mapping[str, str],
    process: CallingProcess,
    caller: HookCaller,
    scan_sources: ScanSources,
) -> CheckedJob:
    with ExitStack() as stack:
        with hard_deadline(longest_s(context.config.slurm)):
            stack.enter_context(job_lock(context.state_dir, CHECK_LOCK.format(job_id)))
        # Before Slurm is asked: an end that is noted later than this voids what is granted.
        began = {names.HOOK_BEGAN_S: f"{uptime_s():.2f}"}
        job = find_running_job(context.commands, job_id, context.node)
        if job is None or job.uid != process.uid:
            return refused(NO_JOB)
        process.require_alive()
        return check_running_job(context, job, {**environ, **began}, caller, scan_sources)


def check_running_job(
    context: NodeContext,
    job: RunningJob,
    environ: Mapping[str, str],
    caller: HookCaller,
    scan_sources: ScanSources,
    options: StartOptions = AS_ITS_PROLOG,
) -> CheckedJob:
    """Return what became of the job, after it was checked if nobody did that yet.

    The caller holds the lock of the job's checks. `options` say how it is checked.
    """
    if not job.runs:
        return CheckedJob(CheckedState.SENT_BACK, f"job {job.job_id} does not run any more")
    if not job.positions:
        return CheckedJob(CheckedState.LEFT)
    state = recorded_state(context, job)
    if state is not None:
        return CheckedJob(state)
    said = start_running_job(job, environ, caller, scan_sources, options)
    state = recorded_state(context, job)
    if state is CheckedState.CHECKED:
        return CheckedJob(state)
    return CheckedJob(_state_without_record(context, job), said)


def recorded_state(context: NodeContext, job: RunningJob) -> CheckedState | None:
    """Return what the node's record says of this attempt, None if it was not decided."""
    known = context.records.find(job.job_id, context.cluster)
    if known is None or known.ended or known.owner.attempt != job.attempt:
        return None
    if known.gpus:
        return CheckedState.CHECKED
    return CheckedState.LEFT if known.is_decided else None


def _state_without_record(context: NodeContext, job: RunningJob) -> CheckedState:
    slurm = context.config.slurm
    # A time of its own: what was asked before may have taken all.
    commands = SlurmCommands(slurm.bin_dir, slurm.command_timeout_s, os.environ)
    try:
        now = find_running_job(commands, job.job_id, context.node)
    except SchedulerError:
        return CheckedState.REFUSED
    if now is None or not now.runs or now.attempt != job.attempt:
        return CheckedState.SENT_BACK
    return recorded_state(context, now) or CheckedState.REFUSED
