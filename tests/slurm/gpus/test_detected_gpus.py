"""GPUs and MIG instances that Slurm detects (`AutoDetect=nvml`), where it constrains devices.

The kernel is asked which of them a task may open: that is what Slurm gave.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from clusters.mig_files import capability_files
from clusters.nvml_plugin import plugin_directories
from clusters.seen_devices import assert_all_free, first_task, install_show, submitted
from clusters.slurms_value import NvmlCluster, slurms_value
from polling import poll_until
from slurm_configurations import slurm_release

from demo_cluster import ClusterSpec, new_directory

pytestmark = [pytest.mark.release, pytest.mark.may_skip]

MINORS = (107, 103, 150)
DIVIDED = 103
INSTANCES = 2
FIRST_WITH_UUIDS_OF_WHOLE_GPUS = (26, 5)


@pytest.fixture(scope="module")
def cluster(venv: Path, people: Any) -> Iterator[GpuCluster]:
    root = new_directory()
    whole = [(f"nvidia{minor}",) for minor in MINORS if minor != DIVIDED]
    parts = [(f"nvidia{DIVIDED}", *capability_files(DIVIDED, place)) for place in range(INSTANCES)]
    spec = ClusterSpec(
        nodes=1,
        minors=(MINORS,),
        gpu_files=(*whole, *parts),
        gpu_types=("h100", "h100", "1g.10gb", "1g.10gb"),
        shows_driver_proc=True,
        shows_devices=True,
        autodetect="nvml",
        constrain_devices=True,
        # Slurm puts detected GPUs to CPUs of this host, and wants these to be whole sockets.
        cpus_per_node=os.cpu_count() or 1,
        slurmd_library_path=root / "nvml",
        slurm_conf_extra=f"PluginDir={plugin_directories()}",
        health_check_interval_s=5,
    )
    made = NvmlCluster(root, venv, spec, {})
    node = made.state.node("n1")
    divided = next(gpu for gpu in node.gpus if gpu.text("minor", "") == str(DIVIDED))
    for place in range(INSTANCES):
        divided.add_mig(place)
    node.write_mig_proc(made.slurm.layout.driver_proc)
    try:
        made.slurm.start()
        # Which instance a number means, slurmd alone knows: the health check asks it.
        answer = root / "run" / "n1" / "slurmd-gpus.json"
        poll_until(answer.exists, "the health check to ask slurmd")
        yield made
    finally:
        made.stop()
        shutil.rmtree(root)


def names_by_files(cluster: GpuCluster) -> dict[frozenset[str], str]:
    """The UUID of each GPU and instance, by the files that a task can open for it."""
    names = {}
    for gpu in cluster.state.node("n1").gpus:
        minor = int(gpu.text("minor", ""))
        if minor != DIVIDED:
            names[frozenset({f"nvidia{minor}"})] = gpu.uuid
            continue
        for place in range(INSTANCES):
            files = (f"nvidia{minor}", *capability_files(minor, place))
            names[frozenset(file.rpartition("/")[2] for file in files)] = gpu.mig(place).uuid
    return names


@pytest.mark.parametrize("kind", ["h100", "1g.10gb"])
def test_a_job_has_the_detected_device_that_it_can_open(
    cluster: GpuCluster, people: Any, kind: str
) -> None:
    alice, bob = people
    script = f"{install_show(cluster)} batch\nsleep 600"
    asked = f"--gres=gpu:{kind}:1"
    names = names_by_files(cluster)
    with (
        submitted(cluster, script, asked, user=bob) as other,
        submitted(cluster, script, asked, user=alice) as job,
    ):
        given = {}
        for number, user in ((other, bob), (job, alice)):
            task = first_task(cluster, number, user)
            given[str(number)] = names[task.can_open]
            assert task.uuids == names[task.can_open]
            # What Slurm wrote is right and stays: 0 is the only one that the task can open. 26.05
            # writes the whole GPUs' UUIDs too, since the instances beside them have the flag UUID.
            own = slurms_value(cluster.slurm.output(number, user=user))
            is_number = kind == "h100" and slurm_release() < FIRST_WITH_UUIDS_OF_WHOLE_GPUS
            assert own == ("0" if is_number else names[task.can_open])
            assert task.visible == own
        assert {holder: uuid for uuid, holder in cluster.held().items()} == given
        assert len({*given.values()}) == 2
    assert_all_free(cluster)
