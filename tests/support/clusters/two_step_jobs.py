"""Jobs that show their GPUs at their start, and again in steps after they were let go on."""

from __future__ import annotations

import os
from pathlib import Path

from clusters.gpu_cluster import GpuCluster
from polling import poll_until

SHOW = 'echo "$CANHAZGPU_GPUS"'


def start_job(cluster: GpuCluster, user: str) -> tuple[int, Path]:
    """Start a job that shows its GPU, waits for a file, and shows it in two steps.

    Returns the job and the file when the job has shown its GPU.
    """
    signal = cluster.slurm.home(user) / f"go-{os.urandom(4).hex()}"
    script = (
        f"{SHOW}\nwhile [ ! -e {signal} ]; do sleep 0.2; done\n"
        f"srun sh -c '{SHOW}'\nsrun sh -c '{SHOW}'"
    )
    job = cluster.slurm.submit(script, "--gres=gpu:1", user=user)
    poll_until(lambda: cluster.slurm.output(job, user=user))
    return job, signal


def end_job(cluster: GpuCluster, job: int, signal: Path, user: str) -> list[str]:
    """Let the job end; returns what it printed, when its GPU is free."""
    signal.touch()
    assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"
    poll_until(lambda: str(job) not in cluster.held().values())
    # srun tells where it had to wait for the resources of the step before.
    printed = cluster.slurm.output(job, user=user).splitlines()
    return [line for line in printed if not line.startswith("srun: ")]
