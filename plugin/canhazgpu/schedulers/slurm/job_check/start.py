"""Start a job that runs already as its prolog would have: with what Slurm says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.journal_entries import PROLOG
from canhazgpu.node.hook_caller import HookCaller
from canhazgpu.schedulers.port import claim_of
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.control.running_job import RunningJob
from canhazgpu.schedulers.slurm.hook.node_context import JobHook
from canhazgpu.schedulers.slurm.hook.run import run_hook
from canhazgpu.schedulers.slurm.hook.startup import ScanSources
from canhazgpu.schedulers.slurm.job_check.own_use import ProbeOfRunningJob
from canhazgpu.schedulers.slurm.job_start.job_share import share_of_gres
from canhazgpu.schedulers.slurm.job_start.reserve import start_or_requeue


def unchanged(hook: JobHook) -> JobHook:
    """Return the hook as it is."""
    return hook


@dataclass(frozen=True, slots=True)
class StartOptions:
    """How a job is started: `adapt` changes the hook before it acts.

    `handle_fault` takes the place of the policy for failures, None for that policy.
    """

    adapt: Callable[[JobHook], JobHook] = unchanged
    handle_fault: Callable[[JobHook, str], None] | None = None


AS_ITS_PROLOG = StartOptions()


def start_running_job(
    job: RunningJob,
    environ: Mapping[str, str],
    caller: HookCaller,
    scan_sources: ScanSources,
    options: StartOptions = AS_ITS_PROLOG,
) -> str:
    """Reserve the job's GPUs and record them, or apply the site's policy; return what was said.

    `environ` has the node's variables alone.
    """
    said: list[str] = []

    def act(hook: JobHook) -> None:
        hook = options.adapt(_as_running(hook, job))
        hook.actions.log(f"job {job.job_id}: it runs without a prolog that ended: checked now")
        start_or_requeue(hook, environment, caller, options.handle_fault)
        said.extend(hook.hook_log.messages)

    environment = {**environ, **job.hook_environment()}
    run_hook(environment, act, PROLOG, scan_sources=scan_sources)
    return said[-1] if said else ""


def _as_running(hook: JobHook, job: RunningJob) -> JobHook:
    owner = replace(hook.job.owner, cluster=hook.cluster or hook.job.owner.cluster)
    context = replace(hook.job, owner=owner)
    if hook.node_conf.shared_gres:
        context = replace(context, share=share_of_gres(hook, job.gres))
    claim = claim_of(context, names.SCHEDULER_TYPE, hook.boot_id)
    return replace(hook, job=context, probe=ProbeOfRunningJob(hook.probe, claim))
