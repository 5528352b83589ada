"""Who, apart from a hook's own job, may have processes on this node's GPUs."""

from __future__ import annotations

from canhazgpu.allocation.coverage import PidNamespace
from canhazgpu.conflict.kill_exemptions import ProcessRights
from canhazgpu.ledger.values import NodeView
from canhazgpu.node.identity import pid_namespace
from canhazgpu.schedulers.slurm.hook.node_context import JobHook


def process_rights_of_others(hook: JobHook, view: NodeView) -> ProcessRights:
    """Return the rights of all owners but the hook's job, from the ledger and from squeue."""
    owner = hook.job.owner
    claims = (one.claim for one in view.all_reservations())
    jobs = hook.actions.running_job_uids(hook.job.node)
    others = {job_id: uid for job_id, uid in (jobs or {}).items() if job_id != owner.job_id}
    return ProcessRights(
        tuple(claim for claim in claims if not owner.covers(claim.owner)),
        None if jobs is None else others,
        hook.config.slurm.protected_users,
        PidNamespace(hook.boot_id, pid_namespace()),
    )
