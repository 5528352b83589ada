"""Jobs that run here and that nobody checked: no prolog ran, and no task could ask the agent.

Their slurmstepds are seen in slurmd's directory. A job without a record is asked about once: most
have no GPU, and slurmctld answers for all nodes of a cluster.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from canhazgpu.config.conflict_chain import StepKind
from canhazgpu.conflict.checked_job import CheckedState
from canhazgpu.errors import CanhazgpuError, error_text
from canhazgpu.ledger.local.jobs.job_record import JobRecord
from canhazgpu.node.boot_clock import age_of_ticks_s, uptime_s
from canhazgpu.node.hook_caller import OWN_PROCESS
from canhazgpu.node.job_lock import job_lock
from canhazgpu.node.state_files import read_if_owned, write_atomically
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.control.running_job import find_running_job
from canhazgpu.schedulers.slurm.hook.node_context import JobHook, NodeContext
from canhazgpu.schedulers.slurm.hook.startup import ScanSources
from canhazgpu.schedulers.slurm.job_check.check import CHECK_LOCK, check_running_job
from canhazgpu.schedulers.slurm.job_check.start import StartOptions

WITHOUT_GPUS_FILE = "jobs-without-gpus.json"
MIN_AGE_S = 60.0
"""How long a job has run at least: its prolog, or its first task, may be about to be heard of."""
UNFINISHED_S = 300.0
"""How old the record of a prolog is that never came to its end."""
BEGIN_WITHIN_S = 2.0
"""How long a health check begins with further jobs; Slurm kills it after a minute."""
CHECK_S = 10.0
"""What one job may take."""


def check_unchecked_jobs(
    context: NodeContext, environ: Mapping[str, str], scan_sources: ScanSources
) -> list[str]:
    """Check the jobs that nobody checked, as their prologs would have; return what was done."""
    started = time.monotonic()
    present = context.presence.jobs_with_step(MIN_AGE_S)
    path = context.state_dir / WITHOUT_GPUS_FILE
    known = _read_names(path)
    unchecked = [job_id for job_id in sorted(present - known) if _lacks_record(context, job_id)]
    done, without = [], known & present
    for job_id in unchecked:
        if time.monotonic() - started > BEGIN_WITHIN_S:
            break  # the next check goes on
        try:
            said = _check(context, job_id, environ, scan_sources)
        except CanhazgpuError as exc:
            done.append(f"job {job_id} may be unchecked: {error_text(exc)}")
            continue
        if said is None:
            without |= {job_id}
        elif said:
            done.append(said)
    if without != known:
        write_atomically(path, json.dumps(sorted(without)).encode())
    return done


def _check(
    context: NodeContext, job_id: str, environ: Mapping[str, str], scan_sources: ScanSources
) -> str | None:
    """Check the job; return what became of it, None if it has no GPU here."""
    with job_lock(context.state_dir, CHECK_LOCK.format(job_id)):
        began = {names.HOOK_BEGAN_S: f"{uptime_s():.2f}"}
        job = find_running_job(context.commands, job_id, context.node)
        if job is None or not job.runs:
            return ""
        if not job.positions:
            return None
        found = check_running_job(
            context, job, {**environ, **began}, OWN_PROCESS, scan_sources, OF_RUNNING_JOB
        )
    became = "checked" if found.state is CheckedState.CHECKED else found.state.name.lower()
    return f"job {job_id} ran unchecked: {became.replace('_', ' ')} {found.message}".rstrip()


def _without_waiting(hook: JobHook) -> JobHook:
    """Return the hook of a job whose tasks run: they use the GPUs that Slurm numbered.

    A health check has no time to wait for a GPU, and other GPUs would not reach these tasks.
    """
    slurm = hook.config.slurm
    steps = [
        step.kind.value
        for step in slurm.chain_of(hook.job.partition)
        if step.kind not in (StepKind.WAIT, StepKind.SWAP)
    ]
    changed = replace(
        slurm,
        assignment="slurm",
        hook_deadline_s=min(slurm.hook_deadline_s, CHECK_S),
        on_conflict=",".join(steps) or StepKind.REQUEUE.value,
        on_conflict_by_partition=(),
    )
    return replace(hook, config=replace(hook.config, slurm=changed))


def _log_fault(hook: JobHook, reason: str) -> None:
    """Leave the job alone, which runs: the next check tries again."""
    hook.actions.log(f"job {hook.job.owner.job_id}: it runs unchecked: {reason}")


OF_RUNNING_JOB = StartOptions(_without_waiting, _log_fault)


def _lacks_record(context: NodeContext, job_id: str) -> bool:
    if not context.records.exists(job_id, context.cluster):
        return True
    record = context.records.find(job_id, context.cluster)
    return record is not None and _is_unfinished(record)


def _is_unfinished(record: JobRecord) -> bool:
    """Tell whether the prolog of the record was killed: it has not said what became of the job."""
    if record.gpus or record.ended or record.is_decided or record.began_ticks is None:
        return False
    age_s = age_of_ticks_s(record.began_ticks)
    return age_s is not None and age_s > UNFINISHED_S


def _read_names(path: Path) -> set[str]:
    try:
        found = json.loads(read_if_owned(path) or b"[]")
    except (OSError, ValueError, RecursionError):
        return set()
    return {one for one in found if isinstance(one, str)} if isinstance(found, list) else set()
