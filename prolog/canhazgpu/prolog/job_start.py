"""At a job's start: reserve its GPUs after a look at them, or send the job back with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import ConfigError
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.ledger.entries import PROLOG
from canhazgpu.refusal import Refusal
from canhazgpu.schedulers.port import AssignedGpu, claim_of
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.devices import gpus_of_positions
from canhazgpu.schedulers.slurm.hook import Hook, fault_text, run_hook, settle
from canhazgpu.service import Grant


def run(environ: Mapping[str, str]) -> int:
    """Handle one job start; returns the exit status for slurmd, see `run_hook`."""
    return run_hook(environ, start_or_send_back, PROLOG)


def start_or_send_back(hook: Hook) -> None:
    """Reserve the job's GPUs; where that fails, send the job back and tell everybody why."""
    reason = _decide(hook)
    if reason is not None:
        outcome = hook.actions.send_back(hook.job, reason)
        hook.actions.log(f"job {hook.job.owner.job_id}: {reason}: job {outcome}")


def _decide(hook: Hook) -> str | None:
    """Return why the job must not start here now, None where it may."""
    try:
        with hard_deadline(hook.config.slurm.hook_deadline_s):
            return start_job(hook)
    except Exception as exc:  # whatever it is, it is no reason to drain the node
        return fault_text(exc)


def start_job(hook: Hook) -> str | None:
    """Reserve the job's GPUs and record them; returns the reason of a refusal."""
    if hook.config_fault is not None:
        raise hook.config_fault
    by_scheduler = devices_are_binding(hook.config.slurm.assignment, hook.facts.constrains_devices)
    scan = hook.probe.start()
    owner = hook.job.owner
    hook.records.begin(owner, hook.job.user, hook.boot_id)
    service = hook.service(hook.ledger())
    settle(service, hook.records, hook.records.ended())
    if owner.attempt > 0:
        earlier = replace(owner, attempt=owner.attempt - 1)
        service.release_job(earlier, "superseded by a later attempt")
    claim = claim_of(hook.job, names.TYPE, hook.boot_id)
    if by_scheduler:
        outcome = service.reserve_given(claim, lambda gpus: _wanted(hook, gpus), scan)
    else:
        outcome = service.reserve_count(claim, len(hook.job.positions), scan)
    if isinstance(outcome, Refusal):
        return outcome.text
    hook.records.complete(
        owner,
        assign(hook, outcome, by_scheduler=by_scheduler),
        constrained=hook.facts.constrains_devices,
        export=hook.config.slurm.export,
    )
    return None


def devices_are_binding(assignment: str, constrained: bool) -> bool:
    """Tell whether the scheduler's choice of devices is the job's.

    Raises `ConfigError` for a choice of our own that the job could not open.
    """
    if assignment == "canhazgpu" and constrained:
        raise ConfigError(
            'slurm.assignment = "canhazgpu" cannot work where cgroup.conf has ConstrainDevices=yes:'
            ' the job could not open the GPUs it is given; set it to "slurm" or "auto"'
        )
    return assignment == "slurm" or constrained


def assign(hook: Hook, grant: Grant, *, by_scheduler: bool) -> tuple[AssignedGpu, ...]:
    """Return the granted GPUs under the scheduler's numbers.

    GPUs of our own choice take the job's numbers in the order of their indices.
    """
    if by_scheduler:
        return _of_positions(hook, grant.node_gpus)
    chosen = sorted(grant.gpus, key=lambda gpu: gpu.index)
    return tuple(
        AssignedGpu(position, gpu.uuid, gpu.index)
        for position, gpu in zip(sorted(hook.job.positions), chosen, strict=True)
    )


def _wanted(hook: Hook, gpus: Sequence[GpuReading]) -> list[str]:
    return [gpu.uuid for gpu in _of_positions(hook, gpus)]


def _of_positions(hook: Hook, gpus: Sequence[GpuReading]) -> tuple[AssignedGpu, ...]:
    facts = hook.facts
    return gpus_of_positions(hook.job.positions, facts.gpu_files, gpus, facts.gpu_count)
