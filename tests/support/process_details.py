"""The details that a scan reads of one process."""

from __future__ import annotations

from dataclasses import replace

from canhazgpu.gpu.scan import GpuProcess
from canhazgpu.probe.processes.cgroup_job import JobOfCgroup, no_job_of_cgroup
from canhazgpu.probe.processes.describe import describe_processes

WAIT_S = 1.0


def describe_process(
    pid: int, memory_mb: int | None, job_of: JobOfCgroup = no_job_of_cgroup
) -> GpuProcess:
    """Return the process that holds so much memory, with all that the node tells of it."""
    return replace(describe_processes([pid], job_of, WAIT_S)[pid], memory_mb=memory_mb)
