"""A run: its GPUs, and the process that keeps them for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.in_process.through_slurm import refuse_through_slurm
from canhazgpu.ledger.values import RUN, Claim, new_owner_token
from canhazgpu.node.identity import node_name
from canhazgpu.schedulers.slurm.control.enclosing_job import find_enclosing_job, srun_command
from canhazgpu.service.grants import RunStarted, ThroughScheduler

if TYPE_CHECKING:
    from canhazgpu.allocation.progress import Progress
    from canhazgpu.allocation.refusal import Refusal
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.service.grants import RunInsideJob, RunRequest


def start_run(
    adapters: Adapters, request: RunRequest, progress: Progress
) -> RunStarted | RunInsideJob | Refusal | ThroughScheduler:
    """See `NodeService.start_run`."""
    from canhazgpu.in_process.adapters import threshold_override  # noqa: PLC0415 - as below

    asked = request.gpus
    config = adapters.effective(threshold_override(asked.memory_threshold_mb)).config
    node = node_name(config.node, adapters.environ)
    if (job := find_enclosing_job(adapters.environ, node)) is not None:
        from canhazgpu.in_process.run_inside import run_inside  # noqa: PLC0415 - only there

        return run_inside(adapters, config, job, node, request)
    if config.run.via_slurm == "yes":
        refuse_through_slurm(asked)
        command = srun_command(
            node,
            asked.count,
            request.command,
            terminal=request.on_terminal,
            limit_s=request.timeout_s,
        )
        return ThroughScheduler(tuple(command), adapters.environ)
    from canhazgpu.in_process.acquisition import (  # noqa: PLC0415 - not through Slurm
        open_acquisition,
        with_processes,
    )

    caller = adapters.caller()
    claim = Claim(new_owner_token(RUN), RUN, caller.user, caller.uid, note=asked.note)
    acquisition = open_acquisition(adapters, config, with_processes(claim))
    outcome = acquisition.get(asked, progress)
    from canhazgpu.allocation.allocator import Grant  # noqa: PLC0415 - imported by now
    from canhazgpu.in_process.run_start import Start  # noqa: PLC0415 - only after a grant

    if not isinstance(outcome, Grant):
        return outcome
    environment = Start(adapters, acquisition, outcome, request).prepare()
    return RunStarted(node, claim.owner, outcome.gpus, outcome.in_use, environment)


def cancel_run(adapters: Adapters, owner: str) -> None:
    """See `NodeService.cancel_run`."""
    from canhazgpu.in_process.run_start import DID_NOT_START  # noqa: PLC0415 - imported by now

    config = adapters.effective().config
    node = node_name(config.node, adapters.environ)
    adapters.writer(config.store).release(node, owner, DID_NOT_START)
