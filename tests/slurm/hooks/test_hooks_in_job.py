"""Hooks that Slurm runs inside their job (PrologFlags=RunInJob, from 24.05 on)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from polling import poll_until

from demo_cluster import ClusterSpec

pytestmark = pytest.mark.release

ENTER = """#!/bin/sh
# As RunInJob does: the hook begins in the job's groups.
for controller in freezer devices; do
    group={mount}/$controller/slurm_n1/uid_$SLURM_JOB_UID/job_$SLURM_JOB_ID/step_extern
    /bin/mkdir -p "$group" && echo 0 >"$group/cgroup.procs"
done
exec {hook}
"""


def has_run_in_job() -> bool:
    version = subprocess.run(["/usr/sbin/slurmd", "-V"], capture_output=True, text=True, check=True)
    found = re.search(r"(\d+)\.(\d+)", version.stdout)
    return found is not None and (int(found[1]), int(found[2])) >= (24, 5)


@pytest.fixture(scope="module")
def cluster(make_cluster: Any) -> GpuCluster:
    flags = ("Alloc", "Contain", "RunInJob") if has_run_in_job() else ("Alloc", "Contain")
    spec = ClusterSpec(nodes=1, gpus_per_node=2, constrain_devices=True, prolog_flags=flags)
    made: GpuCluster = make_cluster(spec)
    if not has_run_in_job():
        for name in ("prolog", "epilog"):
            hook = made.hook_path(name)
            real = hook.rename(made.root / f"{name}.sh")
            hook.write_text(ENTER.format(mount=made.slurm.layout.cgroup_mount, hook=real))
            hook.chmod(0o755)
    return made


def server_pid(cluster: GpuCluster) -> int:
    pids = poll_until(lambda: list((cluster.root / "store").glob("*.pid")), "the store's pid file")
    return int(pids[0].read_text())


def test_the_embedded_store_does_not_live_in_the_job(cluster: GpuCluster, people: Any) -> None:
    alice, _ = people

    # Given the node's first job, whose prolog starts the store
    job = cluster.slurm.submit("sleep 600", "--gres=gpu:1", user=alice)
    cluster.slurm.wait_job(job, states=("RUNNING",))
    server = server_pid(cluster)
    groups = Path(f"/proc/{server}/cgroup").read_text()

    # I expect the job to hold its GPU, and the store to be outside of it
    held = poll_until(cluster.held, "the job's GPU to be reserved")
    assert list(held.values()) == [str(job)]
    assert "/job_" not in groups

    # If the job ends, I expect it to end at once, the store to live on, and the node to take jobs
    cluster.slurm.run(["scancel", str(job)], check=True)
    cluster.slurm.wait_job(job)
    poll_until(lambda: not cluster.held(), "the GPU to be released")
    cluster.slurm.wait_nodes_idle()
    assert server_pid(cluster) == server
    after = cluster.slurm.submit("true", "--gres=gpu:2", user=alice)
    assert cluster.slurm.wait_job(after)["JobState"] == "COMPLETED"
