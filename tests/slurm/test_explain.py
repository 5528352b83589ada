"""What `canhazgpu explain` says of jobs of a real Slurm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from polling import poll_until

from demo_cluster import ClusterSpec
from fake_nvml import start_gpu_process


@pytest.fixture(scope="module")
def cluster(make_cluster: Any) -> GpuCluster:
    return make_cluster(ClusterSpec(nodes=2, gpus_per_node=2), slurm={"assignment": "slurm"})


@pytest.fixture(autouse=True)
def _free_and_up_at_the_end(cluster: GpuCluster) -> Iterator[None]:
    yield
    cluster.cancel_jobs()
    cluster.slurm.wait_nodes_idle()
    cluster.settle()
    assert cluster.held("n1") == cluster.held("n2") == {}


def test_a_job_on_two_nodes_is_told_of_both(cluster: GpuCluster, people: tuple[str, str]) -> None:
    alice, bob = people
    job = cluster.slurm.submit("srun sleep 1", "-N2", "--gres=gpu:2", user=alice)
    assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"
    cluster.slurm.wait_nodes_idle()
    shown = cluster.canhazgpu("explain", str(job), "--json", node="n1", user=bob)
    told = json.loads(shown.stdout)
    for node in ("n1", "n2"):
        kinds = [one["kind"] for one in told["events"] if one["node"] == node]
        assert kinds == [*["grant"] * 2, "prolog", *["release"] * 2, "epilog"]
    assert told["here"]["record"] is None
    text = cluster.canhazgpu("explain", str(job), node="n1", user=bob).stdout
    assert text.startswith(f"job {job} of {alice}\nnode n1\n")
    assert text.count("prolog of attempt 0: granted after") == 2
    assert text.count("epilog of attempt 0: released after") == 2


@pytest.mark.release
def test_a_job_that_was_sent_back_is_told_why(cluster: GpuCluster, people: tuple[str, str]) -> None:
    alice, bob = people
    wanted = cluster.uuids_of_positions("n1")[0]
    gpu = next(one for one in cluster.state.node("n1").gpus if one.uuid == wanted)
    with start_gpu_process(gpu, 8000, user=bob, name="python3") as intruder:
        job = cluster.slurm.submit("true", "-wn1", "--gres=gpu:1", user=alice)
        poll_until(lambda: cluster.slurm.job(job).get("Reason") == "BeginTime")

    def told() -> str:
        return cluster.canhazgpu("explain", str(job), node="n1", user=alice, check=False).stdout

    text = poll_until(lambda: said if "epilog" in (said := told()) else "")
    assert "epilog of attempt 0" in text and "attempt 1" not in text
    assert "prolog of attempt 0: refused" in text
    assert f"is in use by {bob} WITHOUT RESERVATION" in text
    assert f"PID {intruder.pid} (python3)" in text
    assert "saw GPU" in text


def test_a_task_of_an_array_is_found_by_its_name(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, _ = people
    job = cluster.slurm.submit("true", "--array=3-4", "--gres=gpu:1", user=alice)
    cluster.slurm.wait_job(job)
    cluster.slurm.wait_nodes_idle()
    ids = set()
    for task in (3, 4):
        shown = cluster.canhazgpu("explain", f"{job}_{task}", "--json", node="n1", user=alice)
        told = json.loads(shown.stdout)
        assert [one["kind"] for one in told["events"]] == ["grant", "prolog", "release", "epilog"]
        ids.add(told["job_id"])
    # The last task has the array's own number.
    assert str(job) in ids and len(ids) == 2
