"""The jobs that Slurm has on this node, with their GPUs, for a book that was lost.

It asks Slurm's controller, as no hook does on its normal path.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from canhazgpu.config.conflict_chain import StepKind
from canhazgpu.config.schema import SlurmConfig
from canhazgpu.errors import SchedulerError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.local.book.rebuilt_book import SchedulersJob
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.values import Claim
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.control.job_gres import gres_on_node
from canhazgpu.schedulers.slurm.control.job_presence import STATES_ON_NODE
from canhazgpu.schedulers.slurm.control.node_jobs_output import (
    SQUEUE_NODE_JOBS,
    JobOnNode,
    attempt_of,
    gpu_positions,
    parse_started_jobs,
)

COMPLETING = "COMPLETING"
FIELDS = 5
"""Of each line of squeue's answer to `SQUEUE_NODE_JOBS`."""


@dataclass(frozen=True, slots=True)
class NodeJobs:
    """The jobs of this cluster on this node.

    `uuids_at` returns the GPUs at places in gres.conf; None where a job may have others in their
    place. `is_in_hook` tells whether a hook of a job is under way.
    """

    node: str
    cluster: str
    boot_id: str | None
    commands: SlurmCommands
    uuids_at: Callable[[tuple[int, ...]], tuple[str, ...]] | None
    is_in_hook: Callable[[str], bool]

    def with_gpus(self, known: Collection[str]) -> list[SchedulersJob]:
        """Return the jobs that have GPUs here, but those whose owners are `known`.

        Raises `SchedulerError`, and what `uuids_at` raises.
        """
        text = self.commands.run(
            "squeue", *SQUEUE_NODE_JOBS, self.node, variables={"SLURM_TIME_FORMAT": "%s"}
        )
        if any(line.count("|") < FIELDS - 1 for line in text.splitlines()):
            raise SchedulerError("the answer of squeue is not understood", next_step="report it")
        known_ids = {owner.rpartition(":")[0] for owner in known}
        found = [
            self._asked(job)
            for job in parse_started_jobs(text)
            if job.state in STATES_ON_NODE
            and f"job:{self.cluster}:{job.job_id}" not in known_ids
            and not self._is_starting(job)
        ]
        return [one for one in found if one is not None]

    def _is_starting(self, job: JobOnNode) -> bool:
        """Return whether the job's prolog is under way: it has nothing in a book that is lost."""
        return job.state != COMPLETING and self.is_in_hook(job.job_id)

    def _asked(self, job: JobOnNode) -> SchedulersJob | None:
        """Return the job by slurmctld's word, None for one that has no GPUs on this node."""
        job_id = job.job_id
        shown = self.commands.run("scontrol", "show", "job", "-d", job_id)
        positions = gpu_positions(gres_on_node(shown, self.node))
        if positions == ():
            return None
        attempt = attempt_of(shown)
        if attempt is None:
            raise SchedulerError(
                f"'scontrol show job {job_id}' does not tell how often it was restarted",
                next_step="report it with the output of that command",
            )
        owner = JobOwner(self.cluster, job_id, attempt).token
        claim = Claim(owner, names.SCHEDULER_TYPE, job.user, job_id=job_id, boot_id=self.boot_id)
        if positions is None or self.uuids_at is None:
            return SchedulersJob(claim, None)
        return SchedulersJob(claim, self.uuids_at(positions))


def places_are_certain(slurm: SlurmConfig, *, constrained: bool) -> bool:
    """Return whether a job has the devices that Slurm chose, and no others in their place."""
    swaps = any(step.kind is StepKind.SWAP for chain in slurm.chains() for step in chain)
    return constrained or (slurm.assignment == "slurm" and not swaps)
