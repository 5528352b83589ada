"""Clusters do not touch each other, and leave nothing behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from demo_cluster import ClusterSpec, PrivateSlurm, StartError, find_leftovers, new_directory
from demo_cluster.cgroups import CONTROLLERS, cluster_group
from demo_cluster.host.processes import wait_until

from .conftest import People

pytestmark = pytest.mark.slurm

SMALL = ClusterSpec(nodes=1, gpus_per_node=1)
CONSTRAINED = dataclasses.replace(SMALL, constrain_devices=True)


def expect_nothing_left(cluster: PrivateSlurm) -> None:
    assert wait_until(lambda: not find_leftovers(cluster.layout), timeout_s=5)
    groups = [cluster_group(cluster.layout, controller) for controller in CONTROLLERS]
    assert [group for group in groups if group.exists()] == []


def test_two_clusters_with_the_same_node_names_run_side_by_side(people: People) -> None:
    # Given two constrained clusters, each with a node n1 and a job that holds its only GPU
    clusters = [PrivateSlurm(new_directory(), CONSTRAINED) for _ in range(2)]
    try:
        for cluster in clusters:
            cluster.start()
        jobs = [
            cluster.submit("sleep 2; echo done", "--gres=gpu:1", user=people.alice)
            for cluster in clusters
        ]

        # If one cluster is stopped
        for cluster, job in zip(clusters, jobs, strict=True):
            cluster.wait_job(job, states=("RUNNING",))
        clusters[0].stop(delete=True)

        # I expect the other's job to end well
        assert clusters[1].wait_job(jobs[1])["JobState"] == "COMPLETED"
        assert clusters[1].output(jobs[1], user=people.alice) == "done\n"
    finally:
        for cluster in clusters:
            cluster.stop(delete=True)
    for cluster in clusters:
        expect_nothing_left(cluster)
        assert not cluster.layout.root.exists()


def test_a_cluster_starts_again_after_a_stop_and_forgets_its_jobs(
    directory: Path, people: People
) -> None:
    cluster = PrivateSlurm(directory, SMALL)
    for _ in range(2):
        with cluster:
            job = cluster.submit("true", "--gres=gpu:1", user=people.alice)
            assert job == 1
            assert cluster.wait_job(job)["JobState"] == "COMPLETED"
    expect_nothing_left(cluster)


@pytest.mark.parametrize("spec", [SMALL, CONSTRAINED], ids=["free", "constrained"])
def test_nothing_is_left_of_jobs_that_resist(
    directory: Path, people: People, spec: ClusterSpec
) -> None:
    # Given a job that ignores TERM and has children in sessions of their own, one without our marks
    cluster = PrivateSlurm(directory, spec)
    cluster.start()
    script = "setsid sleep 600 & setsid env -i sleep 600 & trap '' TERM; sleep 600; sleep 600"
    job = cluster.submit(script, "--gres=gpu:1", user=people.alice)
    cluster.wait_job(job, states=("RUNNING",))

    # If its slurmstepd's slurmd has crashed before the cluster is stopped
    cluster.kill_slurmd("n1")
    cluster.stop()

    # I expect all of it to be gone
    expect_nothing_left(cluster)


def test_nothing_is_left_of_a_cluster_that_did_not_start(directory: Path) -> None:
    spec = dataclasses.replace(SMALL, slurm_conf_extra="SelectType=select/nonsense")
    cluster = PrivateSlurm(directory, spec)

    with pytest.raises(StartError, match=r"has ended[\s\S]*select/nonsense"):
        cluster.start(timeout_s=20)

    expect_nothing_left(cluster)


def test_a_second_stop_does_nothing(directory: Path) -> None:
    cluster = PrivateSlurm(directory, SMALL)
    cluster.start()
    cluster.stop()
    cluster.stop()
    expect_nothing_left(cluster)
