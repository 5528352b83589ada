"""What is to be seen of one process: what a scan reads of it, and the files that it has open."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

from canhazgpu.gpu.scan import GpuProcess
from canhazgpu.probe.processes.cgroup_job import JobOfCgroup, no_job_of_cgroup
from canhazgpu.probe.processes.describe import describe_processes

WAIT_S = 1.0


def describe_process(
    pid: int, memory_mb: int | None, job_of: JobOfCgroup = no_job_of_cgroup
) -> GpuProcess:
    """Return the process that holds so much memory, with all that the node tells of it."""
    return replace(describe_processes([pid], job_of, WAIT_S)[pid], memory_mb=memory_mb)


def open_files(pid: int) -> list[str]:
    """Return what its descriptors name, as `readlink` does; none of a process that has ended.

    It may close some, or end, while they are read.
    """
    found = []
    with contextlib.suppress(OSError):
        for one in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(one))  # noqa: PTH115
    return found
