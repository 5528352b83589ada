"""The jobs that Slurm has on this node, with their GPUs, for a book that was lost.

It asks Slurm's controller and scans the GPUs, as no hook does on its normal path.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING

from canhazgpu.config.conflict_chain import StepKind
from canhazgpu.config.schema import SlurmConfig
from canhazgpu.errors import ScanError, SchedulerError
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.ledger.local.book.rebuilt_book import SchedulersJob
from canhazgpu.ledger.values import Claim, JobOwner
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.conf.device_mapping import gpus_at_positions
from canhazgpu.schedulers.slurm.control.job_gres import gres_on_node
from canhazgpu.schedulers.slurm.control.job_presence import STATES_ON_NODE
from canhazgpu.schedulers.slurm.control.jobs_on_node import (
    SQUEUE_NODE_JOBS,
    attempt_of,
    gpu_positions,
    parse_started_jobs,
)
from canhazgpu.schedulers.slurm.hook.slurmd_gpus import slurms_devices

if TYPE_CHECKING:
    from canhazgpu.schedulers.slurm.hook.node_ledger import NodeLedgerInputs

FIELDS = 5
"""Of each line of squeue's answer to `SQUEUE_NODE_JOBS`."""


def jobs_here(context: NodeLedgerInputs, known: Collection[str]) -> list[SchedulersJob]:
    """Return the jobs on the node that have GPUs, but those whose owners are `known`.

    Raises `SchedulerError`, `ScanError`, and `InputError` where a place in gres.conf is no GPU.
    """
    text = context.commands.run(
        "squeue", *SQUEUE_NODE_JOBS, context.node, variables={"SLURM_TIME_FORMAT": "%s"}
    )
    if any(line.count("|") < FIELDS - 1 for line in text.splitlines()):
        raise SchedulerError("the answer of squeue is not understood", next_step="report it")
    known_ids = {owner.rpartition(":")[0] for owner in known}
    answers = _ControllersAnswers(context)
    found = [
        answers.of(job.job_id, job.user)
        for job in parse_started_jobs(text)
        if job.state in STATES_ON_NODE and f"job:{context.cluster}:{job.job_id}" not in known_ids
    ]
    return [one for one in found if one is not None]


class _ControllersAnswers:
    """What slurmctld tells of single jobs."""

    def __init__(self, context: NodeLedgerInputs) -> None:
        self._context = context
        self._are_places_certain = places_are_certain(
            context.config.slurm, constrained=context.node_conf.constrains_devices
        )

    @cached_property
    def _readings(self) -> tuple[GpuReading, ...]:
        scan = self._context.probe.start().observe().scan
        if scan.fault is not None:
            raise ScanError(scan.fault)
        return scan.gpus

    def of(self, job_id: str, user: str) -> SchedulersJob | None:
        """Return the job, None for one without GPUs on this node."""
        context = self._context
        shown = context.commands.run("scontrol", "show", "job", "-d", job_id)
        positions = gpu_positions(gres_on_node(shown, context.node))
        if positions == ():
            return None
        attempt = attempt_of(shown)
        if attempt is None:
            raise SchedulerError(
                f"'scontrol show job {job_id}' does not tell how often it was restarted",
                next_step="report it with the output of that command",
            )
        owner = JobOwner(context.cluster, job_id, attempt).token
        claim = Claim(owner, names.SCHEDULER_TYPE, user, job_id=job_id, boot_id=context.boot_id)
        return SchedulersJob(claim, self._uuids(positions))

    def _uuids(self, positions: tuple[int, ...] | None) -> tuple[str, ...] | None:
        if positions is None or not self._are_places_certain:
            return None
        context = self._context
        devices = slurms_devices(context.state_dir, context.node_conf, self._readings)
        return tuple(one.uuid for one in gpus_at_positions(positions, devices, self._readings))


def places_are_certain(slurm: SlurmConfig, *, constrained: bool) -> bool:
    """Return whether a job has the devices that Slurm chose, and no others in their place."""
    swaps = any(step.kind is StepKind.SWAP for chain in slurm.chains() for step in chain)
    return constrained or (slurm.assignment == "slurm" and not swaps)
