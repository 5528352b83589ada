"""The jobs of a node, from the output of ``squeue`` and ``scontrol show job -d``; pure."""

from __future__ import annotations

import re

from canhazgpu.errors import InputError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.schedulers.slurm.conf.hostlist import expand_hostlist

SQUEUE_NODE_JOBS = (
    "--noheader",
    "--array",
    "--states=all",
    "--format=%A|%u|%T|%S|%b",
    "--nodelist",
)
NOT_STARTED = ("PENDING", "CONFIGURING")
_GPU_GRES = re.compile(r"\b(?:gpu|shard|mps)\b")
_RESTARTS = re.compile(r"^\s+Requeue=\d+ Restarts=(\d{1,9}) ", re.M)
_GPU_PART = re.compile(r"gpu(?::[^:,()]+)?:\d{1,9}\(IDX:([\d,-]+)\)", re.I)
_GPUS = re.compile(r"\bgpu\b", re.I)


@dataclass(frozen=True, slots=True)
class JobOnNode:
    """A job that Slurm had on this node since `began`, in seconds since the epoch.

    `gres` is what the job asked for with ``--gres``.
    """

    job_id: str
    user: str
    state: str
    began: float
    gres: str


def parse_started_jobs(text: str) -> list[JobOnNode]:
    """Return the jobs that started, from the output for `SQUEUE_NODE_JOBS`."""
    found = []
    for line in text.splitlines():
        fields = line.split("|", 4)
        if len(fields) != 5 or not fields[3].isdecimal():
            continue
        job_id, user, state, began, gres = fields
        if state not in NOT_STARTED:
            found.append(JobOnNode(job_id, user, state, float(began), gres.strip()))
    return found


def asks_for_gpus(job: JobOnNode) -> bool:
    """Return whether the job asked for GPUs with ``--gres``; others may have some, too."""
    return bool(_GPU_GRES.search(job.gres))


def attempt_of(text: str) -> int | None:
    """Return how often the job was restarted, from ``scontrol show job``; None if it is unclear."""
    found = _RESTARTS.findall(text)
    return int(found[0]) if len(found) == 1 else None


def gpu_positions(gres: str) -> tuple[int, ...] | None:
    """Return the places in gres.conf of the GPUs in a job's ``GRES=`` such as ``gpu:a:2(IDX:0-1)``.

    None where there are GPUs and their places are not told.
    """
    if not gres or not _GPU_GRES.search(gres):
        return ()
    parts = _GPU_PART.findall(gres)
    if len(parts) != len(_GPUS.findall(gres)) or re.search(r"\b(?:shard|mps)\b", gres):
        return None
    try:
        return tuple(int(one) for part in parts for one in expand_hostlist(f"[{part}]"))
    except (InputError, ValueError):
        return None
