"""What a job made of its GPUs, on a real Slurm."""

from __future__ import annotations

import json
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

    def told() -> str:
        """What `explain` says of a new job of which the driver told: that may take too long."""
        job = cluster.slurm.submit("sleep 60", "-wn1", "--gres=gpu:2", user=alice)
        poll_until(lambda: len(cluster.held("n1")) == 2)
        used = cluster.state.node("n1").gpu(0)
        used.account(77, busy_percent=90, peak_mb=71_000, started_at=time.time(), ran_s=3600.0)
        cluster.slurm.run(["scancel", str(job)])
        cluster.slurm.wait_nodes_idle()
        text = poll_until(lambda: _story_with_epilog(cluster, job, alice)) or ""
        assert any(one in text for one in ("GPU 0: peak", "by scans"))
        return text if "GPU 0: peak" in text else ""

    text = poll_until(told) or ""
    assert "      GPU 0: peak 69 of 80 GB, " in text
    assert "      GPU 1: never used" in text

    def reported() -> dict[str, Any] | None:
        text = cluster.canhazgpu("report", "--json", node="n1", user=alice).stdout
        found = [one for one in json.loads(text)["users"] if one["user"] == alice]
        return found[0] if found and found[0]["mean_utilization"] is not None else None

    # By the node's totals, which the epilog's note has added to.
    row = poll_until(reported)
    assert row is not None
    assert 0 < row["mean_utilization"] <= 0.5
    assert row["peak_memory_share"] == pytest.approx(71_000 / 81_559 / 2, abs=0.01)
    table = cluster.canhazgpu("report", "--wasted", node="n1", user=alice).stdout
    assert all(one in table for one in ("WASTED", "MEAN USE", "PEAK MEMORY", alice))


def _story_with_epilog(cluster: GpuCluster, job: int, user: str) -> str:
    text = cluster.canhazgpu("explain", str(job), node="n1", user=user, check=False).stdout
    return text if "epilog" in text else ""


def test_a_runs_use_is_in_its_story(cluster: GpuCluster) -> None:
    def told() -> bool:
        """Whether a new run is told of by the driver: one that answers late is not asked again."""
        before = _runs_told_of(cluster)
        cluster.canhazgpu("run", "--gpus", "1", "--", "true", node="n1")
        (owner,) = poll_until(lambda: _runs_told_of(cluster) - before) or ("",)
        text = cluster.canhazgpu("explain", owner, node="n1").stdout
        assert "use of its GPUs" in text
        return "never used" in text

    poll_until(told)


def _runs_told_of(cluster: GpuCluster) -> set[str]:
    lines = cluster.canhazgpu("events", "--json", node="n1").stdout.splitlines()
    return {str(one["owner"]) for one in map(json.loads, lines) if one["kind"] == "use"}
