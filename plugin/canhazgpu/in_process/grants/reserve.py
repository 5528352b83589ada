"""Reserve GPUs for a person, for a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.config.host_role import require_gpus_to_hold
from canhazgpu.durations import duration_text
from canhazgpu.errors import InputError
from canhazgpu.in_process.adapters import threshold_override
from canhazgpu.in_process.grants.limits import refuse_what_site_forbids
from canhazgpu.in_process.grants.via_slurm import refuse_unsupported_via_slurm
from canhazgpu.ledger.owner import MANUAL
from canhazgpu.ledger.release_reasons import GAVE_UP
from canhazgpu.ledger.values import Claim
from canhazgpu.node.identity import node_name
from canhazgpu.people.command_environment import visible_devices
from canhazgpu.schedulers.slurm.control.srun_commands import salloc_command
from canhazgpu.service.grants import DEFAULT_RESERVE_S, Reserved, ThroughScheduler

if TYPE_CHECKING:
    from canhazgpu.allocation.progress import Progress
    from canhazgpu.allocation.refusal import Refusal
    from canhazgpu.config import Config
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.node.users import Caller
    from canhazgpu.service.grants import ReserveRequest


def reserve(
    adapters: Adapters, request: ReserveRequest, progress: Progress
) -> Reserved | Refusal | ThroughScheduler:
    """See `NodeService.reserve`."""
    gpus = request.gpus
    config = adapters.effective_config(threshold_override(gpus.memory_threshold_mb)).config
    require_gpus_to_hold(config)
    caller = adapters.caller()
    duration_s = _duration_s(request, config, caller)
    node = node_name(config.node, adapters.environ)
    if not gpus.outside_job:
        _refuse_inside_job(adapters, node)
    if config.run.via_slurm == "yes":
        refuse_unsupported_via_slurm(gpus)
        command = salloc_command(
            node, gpus.count, duration_s, gpus.note or "", profile=gpus.profile
        )
        return ThroughScheduler(tuple(command), adapters.environ_of_command)
    refuse_what_site_forbids(config, caller, gpus)
    from canhazgpu.in_process.grants.acquisition import open_acquisition  # noqa: PLC0415 - not via Slurm

    # The claim names no boot and no process: a person's reservation survives both.
    claim = Claim(
        adapters.new_owner(MANUAL),
        MANUAL,
        caller.user,
        caller.uid,
        note=gpus.note,
        duration_s=duration_s,
    )
    acquisition = open_acquisition(adapters, config, claim)
    outcome = acquisition.acquire(gpus, progress)
    from canhazgpu.allocation.allocator import Grant  # noqa: PLC0415 - imported by now

    if not isinstance(outcome, Grant):
        return outcome
    try:
        environment = visible_devices(outcome.gpus, config.run.export)
    except InputError:
        acquisition.ledger.release(node, claim.owner, GAVE_UP)
        raise
    return Reserved(node, claim.owner, outcome.gpus, outcome.in_use, duration_s, environment)


def _refuse_inside_job(adapters: Adapters, node: str) -> None:
    job = adapters.job_around(adapters.environ_of_command, node)
    if job is not None:
        raise InputError(
            f"inside Slurm job {job.job_id} this would take a GPU beside the job's, which Slurm"
            " counts as free: 'canhazgpu run' uses the job's own, 'sbatch --gres=gpu:N' asks Slurm"
            " for more, and --outside-job reserves one nevertheless"
        )


def _duration_s(request: ReserveRequest, config: Config, caller: Caller) -> float:
    """Return how long to reserve; raises `InputError` for longer than the site allows."""
    duration_s, longest_s = request.duration_s, config.run.max_reserve_s
    if duration_s is None:
        return min(DEFAULT_RESERVE_S, longest_s or DEFAULT_RESERVE_S)
    if longest_s and duration_s > longest_s and not caller.rights.may_administrate:
        raise InputError(
            f"--duration is longer than the {duration_text(longest_s)} that this site allows"
            " (run.max_reserve_s)"
        )
    return duration_s
