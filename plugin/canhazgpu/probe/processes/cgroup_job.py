"""The function by which a scheduler finds the job of a process in its control group."""

from __future__ import annotations

from collections.abc import Callable

JobOfCgroup = Callable[[str], str | None]
"""Takes the text of /proc/PID/cgroup; returns the scheduler's job, ``slurm:123``, or None."""


def no_job_of_cgroup(_cgroup: str) -> str | None:
    """Return None, on a node without a scheduler."""
    return None
