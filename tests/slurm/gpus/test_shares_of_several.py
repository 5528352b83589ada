"""Shares of several GPUs: of one on each of two nodes, and of two GPUs of one node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from clusters.seen_devices import Seen, assert_all_free, install_show, seen_in, submitted
from polling import poll_until
from slurm_configurations import slurm_release

from demo_cluster import ClusterSpec

pytestmark = pytest.mark.release

UNITS = 4
"""Of each GPU; a node has two."""
FIRST_RELEASE_OF_SEVERAL = (23, 11)
"""The first that knows MULTIPLE_SHARING_GRES_PJ."""


@pytest.fixture(scope="module")
def cluster(make_cluster: Any) -> GpuCluster:
    several = slurm_release() >= FIRST_RELEASE_OF_SEVERAL
    made: GpuCluster = make_cluster(
        ClusterSpec(
            nodes=2,
            gpus_per_node=2,
            shared_gres=(("shard", 2 * UNITS),),
            slurm_conf_extra="SelectTypeParameters=CR_CPU,MULTIPLE_SHARING_GRES_PJ"
            if several
            else "",
        )
    )
    install_show(made)
    return made


@pytest.fixture(autouse=True)
def _all_free_at_the_end(cluster: GpuCluster) -> Iterator[None]:
    yield
    assert_all_free(cluster)


def shares(cluster: GpuCluster, node: str) -> dict[str, dict[str, Any]]:
    """Of each GPU in Slurm's order that is reserved, each job's share."""
    gpus = cluster.status(node)[node]
    return {
        uuid: {one["job_id"]: one["share"] for one in gpus[uuid]["reservations"]}
        for uuid in cluster.uuids_of_positions(node)
        if gpus[uuid]["reservations"]
    }


def tasks(cluster: GpuCluster, job: int, user: str, count: int) -> list[Seen]:
    def seen() -> list[Seen] | None:
        found = seen_in(cluster.slurm.output(job, user=user))
        return found if len(found) == count else None

    return poll_until(seen)


def test_jobs_of_two_nodes_share_a_gpu_of_each(cluster: GpuCluster, people: Any) -> None:
    show = cluster.root / "show"
    script = f"{show} batch\nsrun -N2 {show} step\nsleep 600"
    first = {node: cluster.uuids_of_positions(node)[0] for node in ("n1", "n2")}
    alice, bob = people
    asked = ["--gres=shard:2", "-N2"]
    part = {"kind": "shard", "amount": 2, "total": UNITS}
    with submitted(cluster, script, *asked, user=bob) as other:
        with submitted(cluster, script, *asked, user=alice) as job:
            for number, user in ((other, bob), (job, alice)):
                seen = tasks(cluster, number, user, 3)
                assert {task.node for task in seen if task.tag == "step"} == {"n1", "n2"}
                for task in seen:
                    assert task.visible == task.uuids == first[task.node]
            for node, uuid in first.items():
                assert shares(cluster, node) == {uuid: {str(other): part, str(job): part}}
        for node, uuid in first.items():
            poll_until(
                lambda node=node, uuid=uuid: shares(cluster, node) == {uuid: {str(other): part}}
            )


@pytest.mark.may_skip
def test_a_share_of_two_gpus_of_a_node(cluster: GpuCluster, people: Any) -> None:
    if slurm_release() < FIRST_RELEASE_OF_SEVERAL:
        pytest.skip("this Slurm gives a job shares of one GPU of a node alone")
    alice, bob = people
    script = f"{cluster.root}/show batch\nsrun {cluster.root}/show step\nsleep 600"
    both = cluster.uuids_of_positions("n1")
    share = {"kind": "shard", "amount": 6, "total": 2 * UNITS}
    with submitted(cluster, script, "--gres=shard:6", "-wn1", user=alice) as job:
        for task in tasks(cluster, job, alice, 2):
            assert task.visible.split(",") == task.uuids.split(",") == both
        assert shares(cluster, "n1") == {uuid: {str(job): share} for uuid in both}

        # What is left of the second one is another job's
        with submitted(cluster, script, "--gres=shard:2", "-wn1", user=bob) as other:
            tasks(cluster, other, bob, 2)
            rest = {"kind": "shard", "amount": 2, "total": UNITS}
            assert shares(cluster, "n1") == {
                both[0]: {str(job): share},
                both[1]: {str(job): share, str(other): rest},
            }
