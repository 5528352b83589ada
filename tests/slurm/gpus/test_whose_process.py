"""Which job a process is in, by control groups that a real Slurm made: what is said and done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from polling import poll_until

from demo_cluster import ClusterSpec, cgroups
from demo_cluster.layout import Layout
from fake_nvml import FakeGpu, start_gpu_process

pytestmark = pytest.mark.release


@pytest.fixture(scope="module")
def cluster(make_cluster: Any) -> GpuCluster:
    spec = ClusterSpec(nodes=2, gpus_per_node=3, constrain_devices=True)
    made: GpuCluster = make_cluster(spec, slurm={"on_conflict": "kill,requeue"})
    return made


@contextmanager
def job_of(
    cluster: GpuCluster, user: str, *args: str, node: str = "n1"
) -> Iterator[tuple[int, int]]:
    """A running job on a node and the pid of a process in it."""
    job = cluster.slurm.submit("echo $$; sleep 600", f"-w{node}", *args, user=user)
    try:
        poll_until(lambda: cluster.slurm.output(job, user=user), f"job {job} to run")
        yield job, int(cluster.slurm.output(job, user=user))
    finally:
        cluster.slurm.run(["scancel", str(job)], check=True)
        cluster.slurm.wait_job(job)


@contextmanager
def on(gpu: FakeGpu, pid: int) -> Iterator[None]:
    """The process uses the GPU, as far as the driver tells."""
    gpu.add_process(pid, 8000)
    try:
        yield
    finally:
        gpu.remove_process(pid)


def gpu_of(cluster: GpuCluster, job: int) -> FakeGpu:
    (uuid,) = (uuid for uuid, holder in cluster.held().items() if holder == str(job))
    return next(gpu for gpu in cluster.state.node("n1").gpus if gpu.uuid == uuid)


@pytest.mark.parametrize("kind", ["with a GPU", "without GPUs"])
@pytest.mark.parametrize("reader", ["root", "alice"])
def test_a_job_on_another_jobs_gpu_is_named(
    cluster: GpuCluster, people: Any, reader: str, kind: str
) -> None:
    alice, _ = people
    # Given two jobs of the same user, one of them on the other's GPU
    gpus = ["--gres=gpu:1"] if kind == "with a GPU" else []
    with (
        job_of(cluster, alice, "--gres=gpu:1") as (victim, own),
        job_of(cluster, alice, *gpus) as (other, foreign),
        on(gpu_of(cluster, victim), own),
        on(gpu_of(cluster, victim), foreign),
    ):
        user = alice if reader == "alice" else "root"
        done = cluster.canhazgpu("validate", node="n1", user=user, check=False)
        shown = cluster.status("n1", user=user)["n1"][gpu_of(cluster, victim).uuid]

    # I expect the other one, and it alone, to be named as use without reservation
    assert done.returncode == 1, done.stdout
    assert f"PID {foreign} " in done.stdout
    assert f"PID {own} " not in done.stdout
    assert [one["job"] for one in shown["intruders"]] == [f"slurm:{other}"]
    assert {one["job"] for one in shown["processes"]} == {f"slurm:{victim}", f"slurm:{other}"}


def join_groups(layout: Layout, member: int, pid: int) -> None:
    """Put a process into each of the cluster's control groups in which `pid` is."""
    joined = 0
    for controller in cgroups.CONTROLLERS:
        for directory, _, _ in os.walk(cgroups.cluster_group(layout, controller)):
            procs = Path(directory) / "cgroup.procs"
            if str(pid) in procs.read_text().split():
                procs.write_text(str(member))
                joined += 1
    assert joined > 0, f"{pid} is in no group of the cluster"


def test_a_process_of_a_running_job_is_not_killed(cluster: GpuCluster, people: Any) -> None:
    alice, bob = people
    # Given a job of alice's and in its groups a process of bob's on a free GPU: bob has no job, so
    # that this group alone protects it. On another GPU a process of bob's that is in no job
    first, second = (
        next(gpu for gpu in cluster.state.node("n1").gpus if gpu.uuid == uuid)
        for uuid in cluster.uuids_of_positions("n1")[:2]
    )
    with job_of(cluster, alice) as (_, pid), start_gpu_process(second, 8000, user=bob) as stray:
        # If a job is to have both
        with start_gpu_process(first, 8000, user=bob) as member:
            join_groups(cluster.slurm.layout, member.pid, pid)
            job = cluster.slurm.submit("true", "-wn1", "--gres=gpu:2", user=alice)
            poll_until(lambda: cluster.slurm.job(job)["Restarts"] == "1", f"job {job} to go back")

            # I expect it to be sent back, and neither process to be ended
            asked = cluster.slurm.run(["squeue", "-h", "-o", "%k", f"--jobs={job}"], check=True)
            assert f"PID {member.pid} " in asked.stdout
            assert member.alive
            assert stray.alive
            cluster.slurm.run(["scancel", str(job)], check=True)
            cluster.slurm.wait_job(job)

        # If it has the one of the stray process alone, I expect that to be ended
        with job_of(cluster, alice, "--gres=gpu:1"):
            job = cluster.slurm.submit("true", "-wn1", "--gres=gpu:1", user=alice)
            assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"
            assert not stray.alive


def test_a_process_of_a_job_of_another_node_on_this_host_is_not_killed(
    cluster: GpuCluster, people: Any
) -> None:
    alice, bob = people
    # Given a job of bob's on n2, a process of which is on a GPU of n1. The two nodes are slurmds
    # of one host; bob has no job on n1
    uuid = cluster.uuids_of_positions("n1")[0]
    gpu = next(one for one in cluster.state.node("n1").gpus if one.uuid == uuid)
    with job_of(cluster, bob, node="n2") as (other, pid), on(gpu, pid):
        # If a job is to have this GPU
        job = cluster.slurm.submit("true", "-wn1", "--gres=gpu:1", user=alice)
        poll_until(lambda: cluster.slurm.job(job)["Restarts"] == "1", f"job {job} to go back")

        # I expect it to be sent back, and the other one to run on
        asked = cluster.slurm.run(["squeue", "-h", "-o", "%k", f"--jobs={job}"], check=True)
        assert f"PID {pid} " in asked.stdout
        assert cluster.slurm.job(other)["JobState"] == "RUNNING"
        (process,) = cluster.status("n1")["n1"][uuid]["processes"]
        assert process["job"] == f"slurm:{other}@n2"
        cluster.slurm.run(["scancel", str(job)], check=True)
        cluster.slurm.wait_job(job)
