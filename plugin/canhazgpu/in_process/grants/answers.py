"""What a grant is to the process that asked: its answer, with the environment for its programs."""

from __future__ import annotations

from collections.abc import Mapping

from canhazgpu.allocation.allocator import Grant
from canhazgpu.config.schema import Config
from canhazgpu.in_process.watching.waiting_request import RunSettings
from canhazgpu.ledger.values import Claim
from canhazgpu.people.command_environment import run_environment, visible_devices
from canhazgpu.service.grants import Reserved, RunStarted


def run_started(
    node: str,
    config: Config,
    claim: Claim,
    grant: Grant,
    run: RunSettings,
    environ: Mapping[str, str],
) -> RunStarted:
    """Return the answer for a run; raises `InputError` where an index of CUDA is not certain."""
    environment = run_environment(environ, run.marker, grant.gpus, config.run.export)
    return RunStarted(node, claim.owner, grant.gpus, grant.in_use, environment)


def reserved(node: str, config: Config, claim: Claim, grant: Grant) -> Reserved:
    """Return the answer for a reservation; raises `InputError` as `run_started`."""
    environment = visible_devices(grant.gpus, config.run.export)
    duration_s = claim.duration_s or 0.0
    return Reserved(node, claim.owner, grant.gpus, grant.in_use, duration_s, environment)
