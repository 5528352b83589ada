"""At a job's start: reserve its GPUs after a look at them; where that fails, policies decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from canhazgpu.deadline import hard_deadline
from canhazgpu.ledger.entries import PROLOG
from canhazgpu.prolog.way import Way, devices_are_binding
from canhazgpu.refusal import Refusal
from canhazgpu.schedulers.slurm.early import Begun
from canhazgpu.schedulers.slurm.hook import Hook, fault_text, run_hook, settle

ANY_ATTEMPT = 2**31
"""Later than any attempt of a job that the node may know of."""


def run(environ: Mapping[str, str], begun: Begun | Exception) -> int:
    """Handle one job start; returns the exit status for slurmd, see `run_hook`."""
    return run_hook(environ, start_or_send_back, PROLOG, begun)


def start_or_send_back(hook: Hook) -> None:
    """Start the job with its GPUs, or do with it what the policies say."""
    try:
        with hard_deadline(hook.time_s):
            start_job(hook)
    except Exception as exc:  # whatever it is, it is no reason to drain the node
        from canhazgpu.prolog.orders import settle_fault  # noqa: PLC0415 - as below

        settle_fault(hook, fault_text(exc))


def start_job(hook: Hook) -> None:
    """Reserve the job's GPUs and record them, or resolve the conflict."""
    if hook.config_fault is not None:
        raise hook.config_fault
    by_scheduler = devices_are_binding(hook.config.slurm.assignment, hook.facts.constrains_devices)
    scan = hook.probe.start()
    owner = hook.job.owner
    namesake = hook.records.begin(owner, hook.job.user, hook.boot_id, hook.job.positions)
    ledger = hook.ledger()
    service = hook.service(ledger)
    settle(service, hook.records, hook.records.ended())
    if hook.again:
        # Nothing of the job runs yet. What the killed run had begun is not known to be in order:
        # whether it looked at what was granted, and released what another job of this number held.
        service.release_job(replace(owner, attempt=ANY_ATTEMPT), "its prolog was killed")
    if namesake is not None:
        service.release_job(namesake, "its number was given to another job")
    if owner.attempt > 0:
        earlier = replace(owner, attempt=owner.attempt - 1)
        service.release_job(earlier, "superseded by a later attempt")
    way = Way(hook, ledger, service, by_scheduler=by_scheduler)
    outcome = way.attempt(scan)
    if isinstance(outcome, Refusal):
        from canhazgpu.prolog.conflict import Conflict  # noqa: PLC0415 - most jobs need none of it

        Conflict(way, outcome).resolve()
    else:
        way.take(outcome)
