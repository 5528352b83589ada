"""The function by which a scheduler finds the job of a process in its control group."""

from __future__ import annotations

from collections.abc import Callable

JobOfCgroup = Callable[[str], str | None]
"""Takes the text of /proc/PID/cgroup; returns the scheduler's job, or None.

A job has the form of `canhazgpu.gpu.process_job`."""


def no_job_of_cgroup(_cgroup: str) -> str | None:
    """Return None, on a node without a scheduler."""
    return None
