"""The check with which the epilog of a job without GPUs ends early.

On many clusters these are most epilogs. This module imports less than half of what the whole
epilog imports.
"""

from __future__ import annotations

from collections.abc import Mapping

from canhazgpu.config.load import load
from canhazgpu.deadline import hard_deadline
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.node.identity import node_name, state_dir
from canhazgpu.schedulers.slurm.hook.job_environment import parse_job_context

READ_DEADLINE_S = 1.0
"""Longest time for reading files, which may be on a slow share."""


def has_nothing_to_end(environ: Mapping[str, str]) -> bool:
    """Tell whether the job has neither GPUs nor a record on this node.

    Never raises. After any error it is False, and the whole epilog logs the error.
    """
    try:
        with hard_deadline(READ_DEADLINE_S, of_running=True):
            config = load(environ).config.node
            node = node_name(config, environ)
            job = parse_job_context(environ, node)
            known = JobRecords(state_dir(config, node)).exists(job.owner.job_id, job.owner.cluster)
            return not job.positions and not known
    except Exception:
        return False
