"""Start a run: reserve its GPUs, and start its monitor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.allocation.gpu_choice import ONE_INSTANCE_TEXT
from canhazgpu.config.host_role import require_gpus_to_hold
from canhazgpu.errors import InputError
from canhazgpu.in_process.grants.limits import refuse_what_site_forbids
from canhazgpu.in_process.grants.via_slurm import refuse_unsupported_via_slurm
from canhazgpu.ledger.owner import RUN
from canhazgpu.ledger.values import Claim
from canhazgpu.node.identity import node_name
from canhazgpu.schedulers.slurm.control.srun_commands import srun_command
from canhazgpu.service.grants import RunStarted, ThroughScheduler

if TYPE_CHECKING:
    from canhazgpu.allocation.progress import Progress
    from canhazgpu.allocation.refusal import Refusal
    from canhazgpu.config.schema import Config
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.in_process.watching.watched_grants import WatchedGrants
    from canhazgpu.service.grants import RunInsideJob, RunRequest


def start_run(
    adapters: Adapters, request: RunRequest, progress: Progress
) -> RunStarted | RunInsideJob | Refusal | ThroughScheduler:
    """See `NodeService.start_run`."""
    from canhazgpu.in_process.adapters import threshold_override  # noqa: PLC0415 - as below

    gpus = request.gpus
    if gpus.profile and gpus.count > 1:
        raise InputError(ONE_INSTANCE_TEXT)
    config = adapters.effective_config(threshold_override(gpus.memory_threshold_mb)).config
    require_gpus_to_hold(config)
    node = node_name(config.node, adapters.environ)
    job = None if gpus.outside_job else adapters.job_around(adapters.environ_of_command, node)
    if job is not None:
        from canhazgpu.in_process.grants.run_inside_job import run_inside_job  # noqa: PLC0415 - only there

        return run_inside_job(adapters, config, job, node, request)
    if config.run.via_slurm == "yes":
        refuse_unsupported_via_slurm(gpus)
        command = srun_command(
            node,
            gpus.count,
            request.command,
            profile=gpus.profile,
            terminal=request.on_terminal,
            limit_s=request.timeout_s,
        )
        return ThroughScheduler(tuple(command), adapters.environ_of_command)
    if adapters.watched is not None:
        return _start_watched_run(adapters, adapters.watched(), config, request, progress)
    return _start_own_run(adapters, node, config, request, progress)


def _start_own_run(
    adapters: Adapters, node: str, config: Config, request: RunRequest, progress: Progress
) -> RunStarted | Refusal:
    """Start a run that this process watches."""
    from canhazgpu.in_process.grants.acquisition import (  # noqa: PLC0415 - not through Slurm
        open_acquisition,
        with_processes,
    )

    caller, gpus = adapters.caller(), request.gpus
    refuse_what_site_forbids(config, caller, gpus)
    claim = Claim(adapters.new_owner(RUN), RUN, caller.user, caller.uid, note=gpus.note)
    acquisition = open_acquisition(adapters, config, with_processes(claim, adapters.process()))
    outcome = acquisition.acquire(gpus, progress, for_command=True)
    from canhazgpu.allocation.allocator import Grant  # noqa: PLC0415 - imported by now
    from canhazgpu.in_process.grants.command_start import CommandStart  # noqa: PLC0415 - only after a grant

    if not isinstance(outcome, Grant):
        return outcome
    environment = CommandStart(adapters, acquisition, outcome, request).prepare_command()
    return RunStarted(node, claim.owner, outcome.gpus, outcome.in_use, environment)


def _start_watched_run(
    adapters: Adapters,
    watched: WatchedGrants,
    config: Config,
    request: RunRequest,
    progress: Progress,
) -> RunStarted | Refusal:
    """Start a run that the node's watcher watches."""
    from canhazgpu.allocation.allocator import Grant  # noqa: PLC0415 - in an agent alone
    from canhazgpu.in_process.grants.acquisition import open_acquisition, with_processes  # noqa: PLC0415
    from canhazgpu.in_process.grants.answers import run_started  # noqa: PLC0415

    caller = adapters.caller()
    refuse_what_site_forbids(config, caller, request.gpus)
    owner = adapters.new_owner(RUN)
    # With the agent's process nobody finds the run dead while the watcher looks for what it left.
    claim = with_processes(
        Claim(owner, RUN, caller.user, caller.uid, note=request.gpus.note),
        adapters.process(),
        watched.agent,
    )
    run = watched.run_settings(owner, request.timeout_s, ends_when_lost=request.ends_when_lost)
    acquisition = open_acquisition(adapters, config, claim, run)
    outcome = acquisition.acquire(request.gpus, progress, for_command=True)
    if not isinstance(outcome, Grant):
        return outcome
    try:
        environ = adapters.environ_of_command
        return run_started(acquisition.node, config, claim, outcome, run, environ)
    except InputError:
        cancel_run(adapters, owner)
        raise


def cancel_run(adapters: Adapters, owner: str) -> None:
    """See `NodeService.cancel_run`."""
    from canhazgpu.ledger.release_reasons import COMMAND_NOT_STARTED  # noqa: PLC0415 - imported by now

    config = adapters.effective_config().config
    node = node_name(config.node, adapters.environ)
    ledger, uid = adapters.writer(config), adapters.caller().uid
    (view,) = ledger.read_nodes([node])
    if any(one.claim.owner == owner and one.claim.uid != uid for one in view.all_reservations()):
        raise InputError(f"{owner} is a run of another user")
    ledger.release(node, owner, COMMAND_NOT_STARTED)
