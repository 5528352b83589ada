"""Slurm writes UUIDs of its own GPUs (`Flags=env_uuid`, 26.05), and canhazgpu picks other ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from clusters.nvml_plugin import plugin_directories
from clusters.seen_devices import assert_all_free, first_task, install_show, run_job, submitted
from clusters.slurms_value import NvmlCluster, slurms_value
from slurm_configurations import slurm_release

from demo_cluster import ClusterSpec, new_directory
from fake_nvml import start_gpu_process

pytestmark = [pytest.mark.release, pytest.mark.may_skip]

FIRST_RELEASE = (26, 5)
MINORS = (107, 103, 150)


@pytest.fixture(scope="module")
def cluster(venv: Path, people: Any) -> Iterator[GpuCluster]:
    if slurm_release() < FIRST_RELEASE:
        pytest.skip("this Slurm does not know env_uuid")
    root = new_directory()
    spec = ClusterSpec(
        nodes=1,
        minors=(MINORS,),
        # Slurm puts detected GPUs to CPUs of this host, and wants these to be whole sockets.
        cpus_per_node=os.cpu_count() or 1,
        shows_devices=True,
        autodetect="nvml",
        slurmd_library_path=root / "nvml",
        gres_conf_extra=f"Name=gpu Count={len(MINORS)} Flags=env_uuid",
        slurm_conf_extra=f"PluginDir={plugin_directories()}",
    )
    made = NvmlCluster(root, venv, spec, {"slurm": {"assignment": "canhazgpu"}})
    try:
        made.slurm.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(root)


def test_a_job_gets_the_gpus_that_canhazgpu_picked(cluster: GpuCluster, people: Any) -> None:
    alice, bob = people
    show = install_show(cluster)
    # Given Slurm's numbers in the driver's own order, and somebody on the first GPU
    gpus = cluster.state.node("n1").gpus
    script = f"""
    {show} batch
    srun -n2 --overcommit --gpus-per-task=1 {show} task
    srun -n1 --gres=none {show} none
    """
    with start_gpu_process(gpus[0], 8000, user=bob):
        # If Slurm gives a job the first two
        with submitted(cluster, f"{show} batch\nsleep 600", "--gres=gpu:2", user=alice) as job:
            first = first_task(cluster, job, alice)
            own = slurms_value(cluster.slurm.output(job, user=alice))
            cluster.settle()
            held = {uuid for uuid, holder in cluster.held().items() if holder == str(job)}
        seen = run_job(cluster, script, "--gres=gpu:2", user=alice)

    # I expect the other two, in every step, and Slurm's UUIDs in none
    assert own == f"{gpus[0].uuid},{gpus[1].uuid}"
    others = {gpus[1].uuid, gpus[2].uuid}
    assert held == others
    for task in (first, *seen["batch"]):
        assert {*task.visible.split(",")} == {*task.uuids.split(",")} == others
    assert {task.visible for task in seen["task"]} == others
    assert {task.uuids for task in seen["task"]} == others
    assert [(task.visible, task.uuids) for task in seen["none"]] == [("unset", "unset")]
    assert_all_free(cluster)
