"""The store killed, stopped, emptied and started again under the jobs of a real Slurm."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from polling import poll_until
from servers.private_redis import PrivateRedis, any_binary

from demo_cluster import ClusterSpec

pytestmark = pytest.mark.parts(2)
GPUS = 4
SPAN = """
echo "BEGIN $(date +%s%N) $CUDA_VISIBLE_DEVICES"
sleep {seconds}
echo "END $(date +%s%N)"
"""


@pytest.fixture(scope="module")
def store() -> Iterator[PrivateRedis]:
    with PrivateRedis(binary=any_binary(), persist=True) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(make_cluster: Any, store: PrivateRedis) -> GpuCluster:
    return make_cluster(
        ClusterSpec(nodes=1, gpus_per_node=GPUS),
        store={"url": store.url, "timeout_s": 2.0, "retry_after_s": 2.0},
    )


@pytest.fixture(autouse=True)
def _free_and_up_at_the_end(cluster: GpuCluster, store: PrivateRedis) -> Iterator[None]:
    yield
    if store.is_running():
        store.resume()
    else:
        store.start()
    cluster.cancel_jobs()
    cluster.slurm.wait_nodes_idle()

    def settled() -> bool:
        assert cluster.health_check("n1").returncode == 0
        return cluster.held() == {} and cluster.pending() == 0

    poll_until(settled)


def book(cluster: GpuCluster) -> dict[str, str]:
    data = json.loads((cluster.root / "run" / "n1" / "book.json").read_text())
    return {gpu: json.loads(text)["job_id"] for gpu, text in data["held"].items()}


def spans(cluster: GpuCluster, user: str, jobs: list[int]) -> dict[str, list[tuple[int, int]]]:
    """The times, by GPU, in which these jobs had it, by their own account."""
    found: dict[str, list[tuple[int, int]]] = {}
    for job in jobs:
        begin, end = cluster.slurm.output(job, user=user).splitlines()
        _, began, gpus = begin.split()
        for gpu in gpus.split(","):
            found.setdefault(gpu, []).append((int(began), int(end.split()[1])))
    return found


def nobody_shared(found: dict[str, list[tuple[int, int]]]) -> bool:
    ordered = [sorted(times) for times in found.values()]
    return all(first[1] < second[0] for times in ordered for first, second in pairwise(times))


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_jobs_run_through_an_outage_and_never_share_a_gpu(
    cluster: GpuCluster, people: tuple[str, str], store: PrivateRedis, how: str
) -> None:
    alice, _ = people
    script = SPAN.format(seconds=1)
    submit = lambda: cluster.slurm.submit(script, "--gres=gpu:1", user=alice)  # noqa: E731
    jobs = [submit() for _ in range(GPUS + 2)]
    poll_until(lambda: len(cluster.held()) == GPUS)
    store.kill() if how == "killed" else store.pause()
    jobs += [submit() for _ in range(2 * GPUS)]
    # Some of them began and ended with the store away.
    cluster.slurm.wait_job(jobs[GPUS + 2])
    store.start() if how == "killed" else store.resume()
    jobs += [submit() for _ in range(GPUS)]
    for job in jobs:
        assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"
    found = spans(cluster, alice, jobs)
    assert sum(map(len, found.values())) == len(jobs)
    assert len(found) == GPUS
    assert nobody_shared(found)
    log = cluster.slurm.log("n1")
    assert "event=store-lost" in log
    assert "drain" not in cluster.slurm.node_states()["n1"]


def test_the_history_has_each_job_once_after_an_outage(
    cluster: GpuCluster, people: tuple[str, str], store: PrivateRedis
) -> None:
    alice, _ = people
    store.kill()
    job = cluster.slurm.submit("true", "--gres=gpu:2", user=alice)
    assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"
    cluster.slurm.wait_nodes_idle()
    store.start()

    def told() -> bool:
        cluster.health_check("n1")
        return cluster.pending() == 0

    poll_until(told)
    shown = json.loads(cluster.canhazgpu("explain", str(job), "--json", node="n1").stdout)
    kinds = [one["kind"] for one in shown["events"]]
    assert sorted(kinds) == sorted([*["grant"] * 2, "prolog", *["release"] * 2, "epilog"])


def test_a_flushed_store_gives_no_running_jobs_gpu_away(
    cluster: GpuCluster, people: tuple[str, str], store: PrivateRedis
) -> None:
    alice, _ = people
    first = cluster.slurm.submit("sleep 600", "--gres=gpu:2", user=alice)
    mine = poll_until(cluster.held)
    assert set(mine.values()) == {str(first)}
    with store.client() as direct:
        direct.flushall()
    second = cluster.slurm.submit(SPAN.format(seconds=1), "--gres=gpu:2", user=alice)
    assert cluster.slurm.wait_job(second)["JobState"] == "COMPLETED"
    assert not spans(cluster, alice, [second]).keys() & mine.keys()
    assert {gpu: job for gpu, job in cluster.held().items() if job == str(first)} == mine


def test_slurmd_and_store_restarted_in_any_order(
    cluster: GpuCluster, people: tuple[str, str], store: PrivateRedis
) -> None:
    alice, _ = people
    job = cluster.slurm.submit("sleep 600", "--gres=gpu:1", user=alice)
    mine = poll_until(cluster.held)
    assert set(mine.values()) == {str(job)}
    store.kill()
    cluster.slurm.restart_slurmd("n1")
    other = cluster.slurm.submit("sleep 600", "--gres=gpu:1", user=alice)
    poll_until(lambda: set(book(cluster).values()) == {str(job), str(other)})
    assert book(cluster).keys() > mine.keys()
    store.start()
    cluster.slurm.restart_slurmd("n1")

    def settled() -> bool:
        cluster.health_check("n1")
        return cluster.held() == book(cluster)

    poll_until(settled)
    assert cluster.held().keys() > mine.keys()


def test_many_jobs_at_once_with_a_store_that_never_answers(
    cluster: GpuCluster,
    people: tuple[str, str],
    store: PrivateRedis,
    request: pytest.FixtureRequest,
) -> None:
    alice, _ = people
    store.pause()
    began = time.monotonic()
    jobs = [
        cluster.slurm.submit(SPAN.format(seconds=0.2), "--gres=gpu:1", user=alice)
        for _ in range(20)
    ]
    for job in jobs:
        assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"
    request.node.user_properties.append(("seconds for 20 jobs on 4 GPUs", time.monotonic() - began))
    assert nobody_shared(spans(cluster, alice, jobs))
