"""Jobs and people share one ledger: nobody ever gets the other's GPU."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from polling import poll_until
from servers.private_redis import PrivateRedis

from demo_cluster import ClusterSpec

SHOW = 'echo "$CUDA_VISIBLE_DEVICES"'


@pytest.fixture(scope="module")
def store() -> Iterator[PrivateRedis]:
    """A server to which every user may write: the embedded one is root's."""
    with PrivateRedis() as server:
        yield server


@pytest.fixture(scope="module")
def cluster(make_cluster: Any, store: PrivateRedis) -> GpuCluster:
    """One node whose devices Slurm's choice binds, and one canhazgpu could choose on."""
    return make_cluster(ClusterSpec(nodes=1, gpus_per_node=2), store={"url": store.url})


@pytest.fixture(autouse=True)
def _free_in_the_end(cluster: GpuCluster) -> Iterator[None]:
    yield
    cluster.configure()
    cluster.cancel_jobs()
    cluster.slurm.wait_nodes_idle()
    poll_until(lambda: not reserved(cluster))


def reserved(cluster: GpuCluster) -> dict[str, str]:
    """Return the node's reserved GPUs and the type of each reservation."""
    return {
        uuid: gpu["reservation"]["type"]
        for uuid, gpu in cluster.status("n1")["n1"].items()
        if gpu["reservation"]
    }


def reserve(cluster: GpuCluster, user: str, *arguments: str) -> list[str]:
    done = cluster.canhazgpu(
        "reserve", "--nonblock", "--duration", "1h", "--json", *arguments, node="n1", user=user
    )
    return [gpu["uuid"] for gpu in json.loads(done.stdout)["gpus"]]


def test_a_job_gets_what_no_person_has(cluster: GpuCluster, people: tuple[str, str]) -> None:
    alice, bob = people
    held = reserve(cluster, bob, "--gpus", "1")
    try:
        job = cluster.slurm.submit(SHOW, "--gres=gpu:1", user=alice)
        assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"
        (shown,) = cluster.slurm.output(job, user=alice).split()
        assert shown not in held
        assert shown in cluster.status("n1")["n1"]
    finally:
        cluster.canhazgpu("release", node="n1", user=bob)


def test_a_job_whose_gpu_a_person_has_is_told_whose_and_until_when(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, bob = people
    cluster.configure(slurm={"assignment": "slurm"})
    reserve(cluster, bob, "--gpus", "2")
    try:
        job = cluster.slurm.submit("echo STARTED", "--gres=gpu:1", user=alice)
        comment = poll_until(
            lambda: (
                (text := cluster.slurm.run(["scontrol", "show", "job", str(job)]).stdout)
                and "canhazgpu" in text
                and text
            )
        )
        assert f"is reserved by {bob} (manual, expires in 59m)" in comment
        assert cluster.slurm.output(job, user=alice) == ""
        assert set(reserved(cluster).values()) == {"manual"}
    finally:
        cluster.canhazgpu("release", node="n1", user=bob)


def test_a_person_gets_what_no_job_has(cluster: GpuCluster, people: tuple[str, str]) -> None:
    alice, bob = people
    job = cluster.slurm.submit("sleep 60", "--gres=gpu:1", user=alice)
    poll_until(lambda: list(reserved(cluster).values()) == ["slurm"])
    (of_the_job,) = reserved(cluster)
    run = ("run", "--nonblock", "--", "sh", "-c", SHOW)
    done = cluster.canhazgpu(*run, node="n1", user=bob)
    assert done.stdout.strip() in set(cluster.status("n1")["n1"]) - {of_the_job}
    refused = cluster.canhazgpu(
        *("run", "--nonblock", "--gpu-ids", of_the_job, "--", "true"),
        node="n1", user=bob, check=False,
    )  # fmt: skip
    assert refused.returncode == 75
    assert f"is reserved by {alice} (slurm job {job})" in refused.stderr
    poll_until(lambda: len(reserved(cluster)) == 1)


def test_who_waits_gets_the_gpu_of_a_job_that_ends(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, bob = people
    job = cluster.slurm.submit("sleep 3", "--gres=gpu:2", user=alice)
    poll_until(lambda: len(reserved(cluster)) == 2)
    done = cluster.canhazgpu("run", "--gpus", "2", "--", "sh", "-c", SHOW, node="n1", user=bob)
    assert len(done.stdout.strip().split(",")) == 2
    assert f"held by {alice} (slurm job {job})" in done.stderr


@pytest.mark.release
def test_inside_a_job_run_uses_the_jobs_gpus(cluster: GpuCluster, people: tuple[str, str]) -> None:
    alice, _ = people
    program = shlex.quote(str(cluster.venv / "bin/canhazgpu"))
    script = f"{SHOW}\nCANHAZGPU_CONFIG={cluster.config_file} {program} run -- sh -c '{SHOW}'"
    job = cluster.slurm.submit(script, "--gres=gpu:1", user=alice)
    assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"
    lines = cluster.slurm.output(job, user=alice).splitlines()
    mine = [line for line in lines if line.startswith("GPU-")]
    assert len(mine) == 2
    assert mine[0] == mine[1]
    assert any(f"inside Slurm job {job}: using its GPUs" in line for line in lines)


def test_inside_a_job_without_gpus_run_says_how_to_get_some(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, _ = people
    program = shlex.quote(str(cluster.venv / "bin/canhazgpu"))
    script = f"CANHAZGPU_CONFIG={cluster.config_file} {program} run -- true; echo status=$?"
    job = cluster.slurm.submit(script, user=alice)
    cluster.slurm.wait_job(job)
    shown = cluster.slurm.output(job, user=alice)
    assert "submit it with --gres=gpu:1" in shown
    assert "status=2" in shown


@pytest.mark.release
def test_run_may_get_its_gpus_through_slurm(cluster: GpuCluster, people: tuple[str, str]) -> None:
    _, bob = people
    cluster.configure(run={"via_slurm": "yes"})
    command = ("run", "--gpus", "2", "--", "sh", "-c", f"{SHOW}; echo job=$SLURM_JOB_ID; exit 3")
    done = cluster.canhazgpu(*command, node="n1", user=bob, check=False)
    assert done.returncode == 3
    assert len(done.stdout.split()[0].split(",")) == 2
    assert "job=" in done.stdout
    refused = cluster.canhazgpu(
        "run", "--gpu-ids", "0", "--", "true", node="n1", user=bob, check=False
    )
    assert refused.returncode == 2
    assert "Slurm picks the GPUs" in refused.stderr


@pytest.mark.release
def test_reserve_may_get_its_gpus_through_slurm(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    _, bob = people
    cluster.configure(run={"via_slurm": "yes"})
    done = cluster.canhazgpu("reserve", "--gpus", "1", "--duration", "10m", node="n1", user=bob)
    assert "Granted job allocation" in done.stderr
    # Slurm's own count is true, and the ledger's too.
    assert list(poll_until(lambda: reserved(cluster)).values()) == ["slurm"]
    (job,) = cluster.slurm.run(["squeue", "-h", "-o", "%A"]).stdout.split()
    assert cluster.slurm.job(int(job))["TimeLimit"] == "00:10:00"
