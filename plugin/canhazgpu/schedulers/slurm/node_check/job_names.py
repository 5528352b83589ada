"""Names and ends of the jobs that hold GPUs of the node, which a prolog is not told.

One ``squeue`` of the node's health check asks for all that lack a name. So nobody's `status` asks
the controller.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from canhazgpu.ledger.values import NodeView
from canhazgpu.schedulers.slurm.control.actions import QUERY_SHARE
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.control.job_lookup import node_arguments, parse_squeue
from canhazgpu.schedulers.slurm.environment import SCHEDULER_TYPE

MAX_NAME = 200
"""Characters of a name that are kept; Slurm allows a thousand."""


def ask_job_names(
    commands: SlurmCommands, view: NodeView, owner_prefix: str
) -> dict[str, Mapping[str, object]]:
    """Return what Slurm says of the jobs without a name, by owner.

    Nobody is asked where none lacks one. Raises `SchedulerError`.
    """
    lacking = {
        one.claim.owner: one.claim
        for one in view.all_reservations()
        if one.claim.type == SCHEDULER_TYPE
        and one.claim.job_name is None
        and one.claim.owner.startswith(owner_prefix)
    }
    if not lacking:
        return {}
    marker = secrets.token_hex(8)
    arguments = node_arguments(view.node, marker)
    text = commands.run(
        "squeue", *arguments, share=QUERY_SHARE, variables={"SLURM_TIME_FORMAT": "%s"}
    )
    jobs = parse_squeue(text, marker)
    named: dict[str, Mapping[str, object]] = {}
    for owner, claim in lacking.items():
        job = jobs.get(claim.job_id or "")
        if job is not None and job.user == claim.user:
            end = {} if job.ends_at is None else {"ends_at": job.ends_at}
            named[owner] = {"job_name": job.name[:MAX_NAME], **end}
    return named
