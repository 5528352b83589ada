"""The part of its GPUs that a job has, where the node's GPUs can be shared.

For ``mps`` the hook's environment tells. For ``shard`` it looks as for whole GPUs (measured on
22.05, 24.11 and 26.05), so the controller is asked, on nodes that have ``shard`` in ``Gres=`` only.
"""

from __future__ import annotations

from dataclasses import replace

from canhazgpu.ledger.values import Share
from canhazgpu.schedulers.slurm.conf.shared_gres import units_of_one_gpu
from canhazgpu.schedulers.slurm.control.job_gres import (
    describes_several,
    gres_on_node,
    share_in_gres,
)
from canhazgpu.schedulers.slurm.control.queries import SQUEUE_JOB, parse_job_address
from canhazgpu.schedulers.slurm.hook.node_context import JobHook

QUERY_TIME_SHARE = 0.5
"""Share of the time for Slurm's commands; the rest is for the action that a failure leads to."""


def with_share(hook: JobHook) -> JobHook:
    """Return the hook with the job's share; raises `SchedulerError` where that cannot be known."""
    return replace(hook, job=replace(hook.job, share=_share(hook)))


def _share(hook: JobHook) -> Share | None:
    kinds = hook.node_conf.shared_gres
    if hook.job.share is not None and "mps" in kinds:
        return hook.job.share
    if "shard" not in kinds:
        return None
    share = share_in_gres(gres_on_node(_described_job(hook), hook.job.node))
    if share is None or share.total:
        return share
    conf = hook.node_conf
    units = units_of_one_gpu(
        share.kind, kinds.get(share.kind), conf.gres, conf.node, conf.gpu_count
    )
    return replace(share, total=units * len(hook.job.positions))


def _described_job(hook: JobHook) -> str:
    """Return what ``scontrol`` says of the job alone.

    An array, and a heterogeneous job, have the id of one of their jobs; for that id it describes
    all of them. squeue's own address names one.
    """

    def ask(program: str, *arguments: str) -> str:
        return hook.commands.run(program, *arguments, share=QUERY_TIME_SHARE)

    job_id = hook.job.owner.job_id
    answer = ask("scontrol", "show", "job", "-d", job_id)
    if describes_several(answer):
        address = parse_job_address(ask("squeue", *SQUEUE_JOB, job_id), job_id)
        answer = ask("scontrol", "show", "job", "-d", address or job_id)
    return answer
