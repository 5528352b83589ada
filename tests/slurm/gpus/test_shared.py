"""Several jobs on one GPU of a real Slurm, by shard and by mps: together they hold it, alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from polling import poll_until

from demo_cluster import ClusterSpec
from fake_nvml import start_gpu_process

pytestmark = pytest.mark.release

KINDS = {
    "shard": ("shard:2", 8, {"kind": "shard", "amount": 2, "total": 4}),
    "mps": ("mps:50", 200, {"kind": "mps", "amount": 50, "total": 100}),
}
"""How a job asks for half a GPU, the units of a node with two GPUs, and the job's share."""


@pytest.fixture(scope="module", params=["auto", "slurm"])
def assignment(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def cluster(make_cluster: Callable[..., GpuCluster], kind: str, assignment: str) -> GpuCluster:
    spec = ClusterSpec(nodes=1, gpus_per_node=2, shared_gres=((kind, KINDS[kind][1]),))
    return make_cluster(spec, slurm={"assignment": assignment})


@pytest.fixture(autouse=True)
def _all_free_at_the_end(cluster: GpuCluster) -> Any:
    yield
    cluster.cancel_jobs()
    cluster.slurm.wait_nodes_idle()
    cluster.settle()
    assert cluster.held() == {}


def holders(cluster: GpuCluster) -> dict[str, list[str]]:
    """The jobs that hold each reserved GPU, by its UUID."""
    return {
        uuid: [one["job_id"] for one in gpu["reservations"]]
        for uuid, gpu in cluster.status()["n1"].items()
        if gpu["reservations"]
    }


def use(cluster: GpuCluster, memory_mb: int = 3000) -> str:
    return (
        f"echo GPUS=$CUDA_VISIBLE_DEVICES\n{cluster.gpu_process()} --memory-mb {memory_mb}"
        " --seconds 600"
    )


def test_two_jobs_share_a_gpu_and_nobody_else_gets_it(
    cluster: GpuCluster, people: Any, kind: str
) -> None:
    alice, bob = people
    gres, _, share = KINDS[kind]
    first = cluster.slurm.submit(use(cluster), f"--gres={gres}", user=alice)
    poll_until(lambda: any(gpu["processes"] for gpu in cluster.status()["n1"].values()))
    second = cluster.slurm.submit(use(cluster), f"--gres={gres}", user=bob)
    shared = cluster.uuids_of_positions("n1")[0]
    poll_until(lambda: holders(cluster) == {shared: [str(first), str(second)]})
    poll_until(lambda: len(cluster.status()["n1"][shared]["processes"]) == 2)

    seen = cluster.status()["n1"][shared]
    assert [one["share"] for one in seen["reservations"]] == [share, share]
    assert seen["reservation"]["job_id"] == str(first)
    assert seen["intruders"] == []
    for job, user in ((first, alice), (second, bob)):
        assert f"GPUS={shared}" in cluster.slurm.output(job, user=user)
    text = cluster.canhazgpu("status", node="n1").stdout
    assert f"{alice},{bob}" in text and f"job {second}" in text

    for command in ("reserve", "run"):
        asked = [command, "--nonblock", "--gpus", "2"]
        asked += [] if command == "reserve" else ["--", "true"]
        refused = cluster.canhazgpu(*asked, node="n1", check=False)
        assert refused.returncode != 0
        assert "Requested: 2, Available: 1" in refused.stderr

    cluster.slurm.run(["scancel", str(first)])
    poll_until(lambda: holders(cluster) == {shared: [str(second)]})
    assert cluster.status()["n1"][shared]["quarantine"] is None
    cluster.slurm.run(["scancel", str(second)])
    poll_until(lambda: holders(cluster) == {})


def test_a_job_of_whole_gpus_never_gets_a_shared_one(
    cluster: GpuCluster, people: Any, kind: str
) -> None:
    alice, bob = people
    shared, other = cluster.uuids_of_positions("n1")
    first = cluster.slurm.submit(use(cluster), f"--gres={KINDS[kind][0]}", user=alice)
    poll_until(lambda: holders(cluster) == {shared: [str(first)]})
    # Slurm 22.05 counts this job on the shared GPU; later releases do not.
    whole = cluster.slurm.submit(use(cluster), "--gres=gpu:1", user=bob)
    decided = ({shared: [str(first)], other: [str(whole)]}, {shared: [str(first)]})
    poll_until(
        lambda: (
            holders(cluster) == decided[0]
            or "canhazgpu: " in str(cluster.slurm.job(whole).get("Comment"))
        )
    )
    assert holders(cluster) in decided


def test_a_share_of_a_gpu_that_a_person_holds_is_refused(
    cluster: GpuCluster, people: Any, kind: str
) -> None:
    alice, _ = people
    shared, _ = cluster.uuids_of_positions("n1")
    cluster.canhazgpu("reserve", "--gpu-ids", shared, "--duration", "1h", node="n1")
    job = cluster.slurm.submit(use(cluster), f"--gres={KINDS[kind][0]}", user=alice)
    poll_until(lambda: "is reserved by root" in str(cluster.slurm.job(job).get("Comment")))
    assert [one["type"] for one in cluster.status()["n1"][shared]["reservations"]] == ["manual"]
    cluster.canhazgpu("release", "--gpu-ids", shared, node="n1")


def test_a_share_of_a_gpu_that_somebody_else_uses_is_refused(
    cluster: GpuCluster, people: Any, kind: str
) -> None:
    alice, bob = people
    shared, _ = cluster.uuids_of_positions("n1")
    first = cluster.slurm.submit(use(cluster), f"--gres={KINDS[kind][0]}", user=alice)
    poll_until(lambda: len(cluster.status()["n1"][shared]["processes"]) == 1)
    gpu = next(one for one in cluster.state.node("n1").gpus if one.uuid == shared)
    with start_gpu_process(gpu, 2000, user=bob) as intruder:
        poll_until(lambda: cluster.status()["n1"][shared]["intruders"])
        second = cluster.slurm.submit(use(cluster), f"--gres={KINDS[kind][0]}", user=bob)
        reason = f"in use by {bob} WITHOUT RESERVATION: 5045MB used by PID {intruder.pid} "
        poll_until(lambda: reason in str(cluster.slurm.job(second).get("Comment")))
        assert holders(cluster) == {shared: [str(first)]}


def test_tasks_of_an_array_share_a_gpu(cluster: GpuCluster, people: Any, kind: str) -> None:
    alice, _ = people
    gres = {"shard": "shard:1", "mps": "mps:25"}[kind]
    shared, _ = cluster.uuids_of_positions("n1")
    cluster.slurm.submit("sleep 600", f"--gres={gres}", "--array=1-3", user=alice)
    poll_until(lambda: len({*holders(cluster).get(shared, [])}) == 3)
    assert holders(cluster).keys() == {shared}


@pytest.fixture(scope="module")
def constrained(make_cluster: Callable[..., GpuCluster], kind: str) -> GpuCluster:
    spec = ClusterSpec(
        nodes=1, gpus_per_node=2, shared_gres=((kind, KINDS[kind][1]),), constrain_devices=True
    )
    return make_cluster(spec)


def test_jobs_that_share_see_their_gpu_where_devices_are_constrained(
    constrained: GpuCluster, people: Any, kind: str
) -> None:
    shared = constrained.uuids_of_positions("n1")[0]
    jobs = {}
    for user in people:
        script = "echo HAS=$CANHAZGPU_GPUS; srun sh -c 'echo STEP=$CANHAZGPU_GPUS'; sleep 600"
        jobs[constrained.slurm.submit(script, f"--gres={KINDS[kind][0]}", user=user)] = user
    # Slurm starts the two in any order.
    poll_until(lambda: {*holders(constrained).get(shared, [])} == {*map(str, jobs)})
    assert holders(constrained).keys() == {shared}
    for job, user in jobs.items():
        output = partial(constrained.slurm.output, job, user=user)
        poll_until(lambda output=output: f"STEP={shared}\n" in output())
        assert f"HAS={shared}\n" in output()
    constrained.cancel_jobs()
    poll_until(lambda: holders(constrained) == {})
