"""The part of its GPUs that a job has, where the node's GPUs can be shared.

For ``mps`` the hook's environment tells. For ``shard`` it looks as for whole GPUs (measured on
22.05, 24.11 and 26.05), so the controller is asked, on nodes that have ``shard`` in ``Gres=`` only.
"""

from __future__ import annotations

from dataclasses import replace

from canhazgpu.ledger.values import Share
from canhazgpu.schedulers.slurm.conf.shared_gres import units_of_one_gpu
from canhazgpu.schedulers.slurm.control.described_job import described_job
from canhazgpu.schedulers.slurm.control.job_gres import gres_on_node, share_in_gres
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
    answer = described_job(hook.commands, hook.job.owner.job_id, QUERY_TIME_SHARE)
    return share_of_gres(hook, gres_on_node(answer, hook.job.node))


def share_of_gres(hook: JobHook, gres: str) -> Share | None:
    """Return the job's share by Slurm's text of its GRES here, None for whole GPUs.

    A share of ``mps`` is in per cent, as a prolog is told it. Raises `SchedulerError`.
    """
    share = share_in_gres(gres)
    if share is None:
        return None
    share = share if share.total else _with_total(hook, share)
    if share.kind != "mps" or not share.total:
        return share
    return Share("mps", share.amount * 100 // share.total, 100)


def _with_total(hook: JobHook, share: Share) -> Share:
    conf, kinds = hook.node_conf, hook.node_conf.shared_gres
    units = units_of_one_gpu(
        share.kind, kinds.get(share.kind), conf.gres, conf.node, conf.gpu_count
    )
    return replace(share, total=units * len(hook.job.positions))
