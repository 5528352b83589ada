"""What the node tells of processes: what its callers need to ask.

The answers are found by `canhazgpu.probe.describe`, which only the child that scans imports: the
names of models are slow to import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from canhazgpu.gpu.scan import GpuProcess, GpuReading

DEFAULT_WAIT_S = 1.0
"""Longest wait for users' names and command lines, all together."""

JobOf = Callable[[str], str | None]
"""Takes the text of /proc/PID/cgroup; returns the scheduler's job in it, ``slurm:123``, if any."""


def no_job(_cgroup: str) -> str | None:
    """Find no job: where the node has no scheduler."""
    return None


def described(pid: int, memory_mb: int | None, job_of: JobOf = no_job) -> GpuProcess:
    """Return a process that holds a GPU, with all that the node tells of it.

    For several processes use `with_process_facts`, which reads their parents once and waits once.
    """
    from canhazgpu.probe.describe import describe_all  # noqa: PLC0415 - see above

    return replace(describe_all([pid], job_of, DEFAULT_WAIT_S)[pid], memory_mb=memory_mb)


def with_process_facts(
    gpus: Sequence[GpuReading], job_of: JobOf = no_job, wait_s: float = DEFAULT_WAIT_S
) -> tuple[GpuReading, ...]:
    """Return the readings with their processes described, of which pid and memory are known.

    Waits at most `wait_s` for what is slow; what is not there in time stays unknown.
    """
    from canhazgpu.probe.describe import describe_all  # noqa: PLC0415 - see above

    pids = [process.pid for gpu in gpus for process in gpu.processes]
    known = describe_all(pids, job_of, wait_s)
    return tuple(
        replace(
            gpu,
            processes=tuple(
                replace(known[process.pid], memory_mb=process.memory_mb)
                for process in gpu.processes
            ),
        )
        for gpu in gpus
    )
