"""The attempt of a job that a hook starts: whether it has ended meanwhile, or nobody waits for it.

The epilog marks the attempt on record as ended. A prolog that is still under way, in the node's
agent or orphaned by a slurmd that was restarted, sees it and grants nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from canhazgpu.errors import VoidGrantError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.node.hook_caller import HookCaller
from canhazgpu.schedulers.port import JobContext
from canhazgpu.schedulers.slurm.hook.ended_attempts import EndedAttempts
from canhazgpu.schedulers.slurm.hook.times import hook_began_s


@dataclass(frozen=True, slots=True)
class StartedAttempt:
    """An attempt on the node's record; `began_ticks` tells it from a later one of the same owner.

    `id_reused_from` is the earlier job with the same number, whose GPUs are not this attempt's.
    """

    owner: JobOwner
    began_ticks: int | None
    records: JobRecords
    caller: HookCaller
    id_reused_from: JobOwner | None = None

    def has_ended(self) -> bool:
        """Return whether the attempt has ended, by the node's own record of it; never raises."""
        return not self.records.is_current(self.owner, self.began_ticks)

    def peer_lives(self) -> bool:
        """Return whether the process that asked for the attempt's GPUs still waits."""
        return not self.caller.is_gone()


def begin_attempt(
    records: JobRecords,
    state_dir: Path,
    job: JobContext,
    boot_id: str | None,
    environ: Mapping[str, str],
    caller: HookCaller,
) -> StartedAttempt:
    """Record that the attempt begins, before anything is reserved for it.

    Raises `VoidGrantError` where it has ended since this hook began, and `NodeStateError`.
    """
    ended = EndedAttempts(state_dir)
    if ended.has_ended_since(job.owner, job.run_id, hook_began_s(environ, caller.pid)):
        raise VoidGrantError("its epilog has run meanwhile")
    reused = records.begin(job.owner, job.user, boot_id, job.positions, job.run_id)
    record = records.find(job.owner.job_id, job.owner.cluster)
    began_ticks = record.began_ticks if record is not None else None
    return StartedAttempt(job.owner, began_ticks, records, caller, reused)
