"""The epilog of a job without GPUs, which is most epilogs on many a cluster: one look, and out.

Imports less than half of what the whole epilog does.
"""

from __future__ import annotations

from collections.abc import Mapping

from canhazgpu.config.load import load
from canhazgpu.deadline import hard_deadline
from canhazgpu.ledger.local.job_records import JobRecords
from canhazgpu.node.identity import node_name, state_dir
from canhazgpu.schedulers.slurm.hook.job_environment import parse_job_context

LOOK_DEADLINE_S = 1.0
"""Longest time for the look: files may lie on a slow share, and the whole epilog has its own."""


def has_nothing_to_end(environ: Mapping[str, str]) -> bool:
    """Tell whether the job has neither GPUs nor a record here.

    Never raises: what cannot be read or makes no sense is for the whole epilog, which tells of it.
    """
    try:
        with hard_deadline(LOOK_DEADLINE_S):
            config = load(environ).config.node
            node = node_name(config, environ)
            job = parse_job_context(environ, node)
            known = JobRecords(state_dir(config, node)).exists(job.owner.job_id)
            return not job.positions and not known
    except Exception:
        return False
