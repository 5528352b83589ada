"""Jobs that Slurm had on this node and of which neither the store nor the node has a word.

The node's own records lie in a directory that a reboot empties, and with them what the store had
not heard yet. So the first check after a boot, or in an empty directory, asks Slurm for the jobs
that were here. That must be soon: slurmctld forgets that a job was on a node when it requeues it,
and ended jobs after MinJobAge. slurmd runs its first check before it registers with slurmctld
(seen on 22.05), when slurmctld still has the jobs of before the reboot on the node.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from canhazgpu.errors import SchedulerError
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.values import Event, NodeView
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.state_files import read_if_owned, write_atomically
from canhazgpu.schedulers.slurm.control.actions import QUERY_SHARE
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.control.job_gres import gres_on_node
from canhazgpu.schedulers.slurm.control.node_jobs_output import (
    SQUEUE_NODE_JOBS,
    JobOnNode,
    asks_for_gpus,
    parse_started_jobs,
)
from canhazgpu.schedulers.slurm.hook.node_context import NodeContext
from canhazgpu.status.event_format import local_time_text

CHECKED_BOOT_FILE = "checked-boot"
"""The node's boot in which Slurm was asked."""
CLOCK_TOLERANCE_S = 60.0
"""How far the clocks of slurmctld, the store and this node may differ."""
MAX_DESCRIBED_JOBS = 16
"""Jobs that scontrol is asked about; of more, only how many GPUs each had is told."""


def jobs_to_note(
    context: NodeContext, ledger: FallbackLedger, view: NodeView
) -> list[dict[str, Any]]:
    """Return what the health check notes of such jobs, once in each boot of the node.

    Raises `StoreError` and `SchedulerError`: then the next check asks again.
    """
    marker = context.state_dir / CHECKED_BOOT_FILE
    boot = (context.boot_id or "unknown").encode()
    if read_if_owned(marker) == boot or ledger.without_store:
        return []
    started = parse_started_jobs(
        context.commands.run(
            "squeue",
            *SQUEUE_NODE_JOBS,
            context.node,
            share=QUERY_SHARE,
            variables={"SLURM_TIME_FORMAT": "%s"},
        )
    )
    jobs = [
        job
        for job in started
        if asks_for_gpus(job) and not context.records.exists(job.job_id, context.cluster)
    ]
    noted = []
    if jobs:
        since = min(job.began for job in jobs) - CLOCK_TOLERANCE_S
        history = ledger.ask_store(lambda store: store.history(context.node, since))
        booted_at = time.time() - uptime_s()
        for job in without_known(jobs, history, view)[:MAX_DESCRIBED_JOBS]:
            gres = _described_gres(context.commands, context.node, job)
            noted.append(note_of(job, gres, booted_at))
    write_atomically(marker, boot)
    return noted


def without_known(
    jobs: Iterable[JobOnNode], history: Sequence[Event], view: NodeView
) -> list[JobOnNode]:
    """Return the jobs without a reservation and without an event since they began."""
    holders = {one.claim.job_id for one in view.all_reservations()}
    last: dict[str, float] = {}
    for event in history:
        if event.claim is not None and event.claim.job_id:
            last[event.claim.job_id] = max(last.get(event.claim.job_id, 0.0), event.at)
    return [
        job
        for job in jobs
        if job.job_id not in holders and last.get(job.job_id, 0.0) < job.began - CLOCK_TOLERANCE_S
    ]


def note_of(job: JobOnNode, gres: str, booted_at: float) -> dict[str, Any]:
    """Return the note of one job for the facts of the health check."""
    began = local_time_text(job.began)
    lost = "no grant of it reached the store, and the node's own record of it is lost"
    if job.began < booted_at:
        what = f"it was here since {began} with {gres} when the node rebooted at"
        what += f" {local_time_text(booted_at)}: {lost}"
    else:
        what = f"Slurm has it here since {began} with {gres}, {job.state}: {lost}"
    return {"job_id": job.job_id, "user": job.user, "what": what, "began": job.began, "gres": gres}


def _described_gres(commands: SlurmCommands, node: str, job: JobOnNode) -> str:
    """Return the job's GRES on the node with Slurm's numbers, else what it asked for."""
    with suppress(SchedulerError):
        return gres_on_node(commands.run("scontrol", "show", "job", "-d", job.job_id), node)
    return job.gres
