"""What a job made of its GPUs, on a real Slurm."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from polling import poll_until

from demo_cluster import ClusterSpec

pytestmark = pytest.mark.release


@pytest.fixture(scope="module", params=["direct", "agent"])
def cluster(make_cluster: Any, request: pytest.FixtureRequest) -> GpuCluster:
    made: GpuCluster = make_cluster(
        ClusterSpec(nodes=1, gpus_per_node=2),
        way=request.param,
        validation={"accounting": "auto"},
        slurm={"assignment": "slurm"},
    )
    made.health_check("n1")
    return made


@pytest.fixture(autouse=True)
def _free_at_the_end(cluster: GpuCluster) -> Iterator[None]:
    yield
    cluster.cancel_jobs()
    cluster.slurm.wait_nodes_idle()


def test_a_jobs_use_is_in_its_story(cluster: GpuCluster, people: tuple[str, str]) -> None:
    alice, _ = people
    # The health check has switched the driver's accounting on.
    modes = [gpu.text("accounting_mode", 0) for gpu in cluster.state.node("n1").gpus]
    assert modes == ["1", "1"]
    job = cluster.slurm.submit("sleep 60", "-wn1", "--gres=gpu:2", user=alice)
    poll_until(lambda: len(cluster.held("n1")) == 2)
    used = cluster.state.node("n1").gpu(0)
    used.account(77, busy_percent=90, peak_mb=71_000, started_at=time.time(), ran_s=3600.0)
    cluster.slurm.run(["scancel", str(job)])
    cluster.slurm.wait_nodes_idle()

    def told() -> str:
        text = cluster.canhazgpu("explain", str(job), node="n1", user=alice, check=False).stdout
        return text if "epilog" in text else ""

    text = poll_until(told)
    assert "      GPU 0: peak 69 of 80 GB, " in text
    assert "      GPU 1: never used" in text
