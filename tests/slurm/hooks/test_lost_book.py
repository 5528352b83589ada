"""The node's book lost under running jobs of a real Slurm: nobody is granted what they hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from polling import poll_until
from servers.private_redis import PrivateRedis, any_binary

from demo_cluster import ClusterSpec

pytestmark = pytest.mark.parts(2)
GPUS = 4
NODE = "n1"


@pytest.fixture(scope="module")
def store() -> Iterator[PrivateRedis]:
    with PrivateRedis(binary=any_binary(), persist=True) as server:
        yield server


@pytest.fixture(scope="module", params=["direct", "agent"])
def any_cluster(make_cluster: Any, store: PrivateRedis, request: pytest.FixtureRequest) -> Any:
    spec = ClusterSpec(nodes=1, gpus_per_node=GPUS)
    slurm = {"assignment": "canhazgpu"}
    url = {"url": store.url, "timeout_s": 2.0, "retry_after_s": 2.0}
    return make_cluster(spec, way=request.param, slurm=slurm, store=url)


@pytest.fixture
def cluster(any_cluster: GpuCluster, store: PrivateRedis) -> Iterator[GpuCluster]:
    yield any_cluster
    clear(any_cluster, store)


@pytest.fixture
def constrained(make_cluster: Any, store: PrivateRedis) -> Iterator[GpuCluster]:
    """Slurm picks the devices, so it can tell which ones a job has."""
    spec = ClusterSpec(nodes=1, gpus_per_node=GPUS, constrain_devices=True)
    url = {"url": store.url, "timeout_s": 2.0, "retry_after_s": 2.0, "prefix": "constrained"}
    made = make_cluster(spec, store=url)
    yield made
    clear(made, store)


def clear(cluster: GpuCluster, store: PrivateRedis) -> None:
    if not store.is_running():
        store.start()
    cluster.cancel_jobs()
    cluster.slurm.wait_nodes_idle()

    def settled() -> bool:
        assert cluster.health_check(NODE).returncode == 0
        return cluster.held() == {} and cluster.pending() == 0

    poll_until(settled)


def submitted(cluster: GpuCluster, gpus: int, user: str) -> str:
    return str(cluster.slurm.submit("echo up; sleep 600", f"--gres=gpu:{gpus}", user=user))


def running_job(cluster: GpuCluster, gpus: int, user: str) -> str:
    """Start a job; return it when its prolog has ended, and with it all that it writes."""
    job = submitted(cluster, gpus, user)
    poll_until(lambda: len(held_by(cluster, job)) == gpus)
    poll_until(lambda: cluster.slurm.output(int(job), user=user))
    return job


def held_by(cluster: GpuCluster, job: str) -> set[str]:
    return {gpu for gpu, holder in cluster.held().items() if holder == job}


def booked(cluster: GpuCluster) -> dict[str, str]:
    data = json.loads((cluster.root / "run" / NODE / "book.json").read_text())
    return {gpu: json.loads(text)["job_id"] for gpu, text in data["held"].items()}


def test_the_next_job_gets_no_gpu_that_is_held(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, bob = people
    first = running_job(cluster, 2, alice)
    before = cluster.held()
    (cluster.root / "run" / NODE / "book.json").unlink()
    second = submitted(cluster, 2, bob)
    poll_until(lambda: len(held_by(cluster, second)) == 2)
    assert held_by(cluster, first) == set(before)
    assert booked(cluster) == cluster.held()
    assert "event=book-rebuilt" in cluster.slurm.log(NODE)


def test_with_the_store_down_nobody_is_granted_anything(
    cluster: GpuCluster, people: tuple[str, str], store: PrivateRedis
) -> None:
    alice, bob = people
    first = running_job(cluster, 2, alice)
    before = cluster.held()
    store.kill()
    (cluster.root / "run" / NODE / "book.json").unlink()
    second = submitted(cluster, 2, bob)
    comment = lambda: cluster.slurm.job(int(second)).get("Comment", "")  # noqa: E731
    poll_until(lambda: "not known who holds the GPUs" in comment())
    assert "the store does not answer" in comment()
    assert not (cluster.root / "run" / NODE / "book.json").exists()
    cluster.slurm.run(["scancel", second])
    store.start()
    third = submitted(cluster, 2, bob)
    poll_until(lambda: len(held_by(cluster, third)) == 2)
    assert held_by(cluster, first) == set(before)


def test_slurm_tells_which_gpus_its_jobs_have(
    constrained: GpuCluster, people: tuple[str, str], store: PrivateRedis
) -> None:
    """Everything else is lost: the node's records and what the store had."""
    alice, bob = people
    first = running_job(constrained, 2, alice)
    before = constrained.held()
    shutil.rmtree(constrained.root / "run" / NODE)
    with store.client() as client:
        client.flushall()
    refused = constrained.canhazgpu(
        "run", "--gpus", "1", "--", "true", node=NODE, user=bob, check=False
    )
    assert refused.returncode == 6
    assert "is missing, and was there in this boot" in refused.stderr
    assert constrained.health_check(NODE).returncode == 0
    assert constrained.held() == before
    assert booked(constrained) == before
    second = submitted(constrained, 1, bob)
    poll_until(lambda: len(held_by(constrained, second)) == 1)
    assert held_by(constrained, first) == set(before)


# The agent's sockets would be lost as well.
@pytest.mark.parametrize("any_cluster", ["direct"], indirect=True)
def test_a_job_whose_gpus_nobody_knows_keeps_all_others_out(
    any_cluster: GpuCluster, people: tuple[str, str], store: PrivateRedis
) -> None:
    cluster, (alice, bob) = any_cluster, people
    first = running_job(cluster, 1, alice)
    with store.client() as client:
        client.flushall()
    shutil.rmtree(cluster.root / "run" / NODE)
    second = submitted(cluster, 1, bob)
    comment = lambda: cluster.slurm.job(int(second)).get("Comment", "")  # noqa: E731
    poll_until(lambda: f"know the GPUs of job {first} of {alice}" in comment())
    cluster.slurm.run(["scancel", second])
    cluster.slurm.run(["scancel", first])
    cluster.slurm.wait_nodes_idle()
    third = submitted(cluster, 1, bob)
    poll_until(lambda: len(held_by(cluster, third)) == 1)
    clear(cluster, store)
