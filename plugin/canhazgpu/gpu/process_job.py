"""How a process's job of the scheduler is written in a scan; pure.

``slurm:123`` is job 123. ``slurm:?NAME`` is a job that the scheduler runs on this node and whose
id is not known; NAME is the scheduler's own name of it. ``slurm:123@NODE`` is a job of another node
of the scheduler on this host, or of another cluster.
"""

from __future__ import annotations

_UNIDENTIFIED = "?"
_OF_NODE = "@"


def identified_job(scheduler: str, job_id: str) -> str:
    """Return the text for a job by its id."""
    return f"{scheduler}:{job_id}"


def unidentified_job(scheduler: str, name: str) -> str:
    """Return the text for a job whose id is not known."""
    return f"{scheduler}:{_UNIDENTIFIED}{name}"


def job_of_another_node(scheduler: str, name: str, node: str) -> str:
    """Return the text for a job of another node on this host, by its id or the scheduler's name."""
    return f"{scheduler}:{name}{_OF_NODE}{node}"


def is_of_another_node(job: str | None) -> bool:
    """Tell whether the process is in a job of another node of the scheduler on this host."""
    return job is not None and _OF_NODE in job


def is_unidentified(job: str | None) -> bool:
    """Tell whether the process is in a job of which the id is not known."""
    return job is not None and job.partition(":")[2].startswith(_UNIDENTIFIED)


def job_text(job: str) -> str:
    """Return the job for people: ``slurm job 123``, ``unidentified slurm job NAME``."""
    scheduler, _, name = job.partition(":")
    if is_unidentified(job):
        return f"unidentified {scheduler} job {name.removeprefix(_UNIDENTIFIED)}"
    return f"{scheduler} job {name}"
