"""At a job's end: release what this attempt holds, and publish the GPUs as they are now."""

from __future__ import annotations

from collections.abc import Mapping

from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import NodeStateError, explain
from canhazgpu.ledger.entries import EPILOG
from canhazgpu.schedulers.slurm.hook import Hook, fault_text, run_hook, settle


def run(environ: Mapping[str, str]) -> int:
    """Handle one job end; returns the exit status for slurmd, see `run_hook`."""
    return run_hook(environ, end_or_report, EPILOG)


def end_or_report(hook: Hook) -> None:
    """Release the job's GPUs; where that fails, tell the administrator."""
    if not hook.job.positions and not hook.records.has(hook.job.owner.job_id):
        return
    try:
        with hard_deadline(hook.config.slurm.hook_deadline_s):
            end_job(hook)
    except Exception as exc:  # whatever it is, it is no reason to drain the node
        hook.actions.log(f"job {hook.job.owner.job_id}: GPUs not released: {fault_text(exc)}")


def end_job(hook: Hook) -> None:
    """Release the attempt that ended, by the node's record of it.

    The record is marked first: where the ledger cannot be reached now, the next hook on this node
    makes the release good. Without a record that can be read and marked, the job's number decides.
    """
    recorded = _mark_ended(hook)
    if hook.config_fault is not None:
        raise hook.config_fault
    service = hook.service(hook.ledger())
    if recorded:
        settle(service, hook.records, hook.records.ended())
    else:
        service.release_job(hook.job.owner, "job ended")
    service.publish()


def _mark_ended(hook: Hook) -> bool:
    job_id = hook.job.owner.job_id
    recorded = hook.records.has(job_id)
    try:
        # An owed epilog may have been lost: then this one is the last, and Slurm knows it.
        last = hook.records.owes_epilogs(job_id) and hook.actions.is_over(job_id)
        hook.records.end(job_id, last=last)
    except NodeStateError as exc:
        hook.actions.log(f"job {job_id}: {explain(exc)}")
        return False
    return recorded
