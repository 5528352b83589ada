"""Which scheduler's job a process belongs to, by its control group: what a scheduler provides."""

from __future__ import annotations

from collections.abc import Callable

JobOfCgroup = Callable[[str], str | None]
"""Takes the text of /proc/PID/cgroup; returns the scheduler's job in it, ``slurm:123``, if any."""


def no_job_of_cgroup(_cgroup: str) -> str | None:
    """Find no job: where the node has no scheduler."""
    return None
