"""What jobs made of their GPUs, in their AdminComment, on a real Slurm with its accounting."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from polling import poll_until

from demo_cluster import ClusterSpec


@pytest.fixture(scope="module", params=["direct", "agent"])
def cluster(make_cluster: Any, request: pytest.FixtureRequest) -> GpuCluster:
    if not shutil.which("slurmdbd") or not shutil.which("mariadbd"):
        pytest.skip("Slurm's accounting needs slurmdbd and MariaDB")
    made: GpuCluster = make_cluster(
        ClusterSpec(nodes=2, gpus_per_node=2, accounting=True),
        way=request.param,
        validation={"accounting": "auto"},
        slurm={"assignment": "slurm", "job_report": "admin_comment"},
    )
    for node in ("n1", "n2"):
        made.health_check(node)
    return made


@pytest.fixture(autouse=True)
def _free_at_the_end(cluster: GpuCluster) -> Iterator[None]:
    yield
    cluster.cancel_jobs()
    cluster.slurm.wait_nodes_idle()


def accounted(cluster: GpuCluster, job: str, field: str) -> str:
    """Return what the accounting has of a job, as sacct shows it."""
    command = ["sacct", "-X", "-n", "-P", "-j", job, "-o", field]
    return cluster.slurm.run(command, check=True).stdout.strip()


def reports(cluster: GpuCluster, node: str) -> list[str]:
    return [path.name for path in (cluster.root / "run" / node / "job-reports").glob("[0-9]*")]


def comment_of(cluster: GpuCluster, job: str, *nodes: str) -> str:
    """Return the job's comment once each node has delivered what it had to tell."""
    poll_until(lambda: accounted(cluster, job, "End") not in ("", "Unknown"))

    def told() -> bool:
        for node in nodes:
            cluster.health_check(node)
        return not any(reports(cluster, node) for node in nodes)

    poll_until(told, f"the report of job {job}")
    return accounted(cluster, job, "AdminComment")


def test_a_jobs_use_is_its_admin_comment(cluster: GpuCluster, people: tuple[str, str]) -> None:
    alice, _ = people
    job = cluster.slurm.submit("true", "-wn1", "--gres=gpu:2", user=alice)
    cluster.slurm.wait_job(job)
    cluster.slurm.wait_nodes_idle()
    # The epilog has told Slurm nothing: the controller takes no comment of a job that has ended.
    assert len(reports(cluster, "n1")) == 1
    # sacctmgr of 22.05 writes it in lower case.
    assert comment_of(cluster, str(job), "n1").lower() == (
        "canhazgpu: gpu 0 h100: never used; gpu 1 h100: never used"
    )


def test_each_node_of_a_job_has_its_part(cluster: GpuCluster, people: tuple[str, str]) -> None:
    alice, _ = people
    job = cluster.slurm.submit("true", "-N2", "--gres=gpu:1", user=alice)
    cluster.slurm.wait_job(job)
    cluster.slurm.wait_nodes_idle()
    parts = comment_of(cluster, str(job), "n1", "n2").lower().removeprefix("canhazgpu: ")
    assert [part.partition(": gpu ")[0] for part in parts.split(" | ")] == ["n1", "n2"]


def test_one_task_of_an_array_has_its_own(cluster: GpuCluster, people: tuple[str, str]) -> None:
    alice, _ = people
    # The last task has the array's own number, which means all of them to Slurm's commands.
    array = cluster.slurm.submit("true", "-wn1", "--array=1-2", "--gres=gpu:1", user=alice)
    poll_until(lambda: len(reports(cluster, "n1")) == 2)
    cluster.slurm.wait_nodes_idle()
    for task in (1, 2):
        ours = [f"canhazgpu: gpu {place} h100: never used" for place in (0, 1)]
        assert comment_of(cluster, f"{array}_{task}", "n1").lower() in ours


def test_what_another_tool_wrote_stays(cluster: GpuCluster, people: tuple[str, str]) -> None:
    alice, _ = people
    job = cluster.slurm.submit("sleep 600", "-wn1", "--gres=gpu:1", user=alice)
    poll_until(lambda: len(cluster.held("n1")) == 1)
    other = ["scontrol", "update", f"job={job}", "admincomment={'a': 1}"]
    cluster.slurm.run(other, check=True)
    cluster.slurm.run(["scancel", str(job)], check=True)
    cluster.slurm.wait_job(job)
    cluster.slurm.wait_nodes_idle()
    assert len(reports(cluster, "n1")) == 1
    assert comment_of(cluster, str(job), "n1") == "{'a': 1}"


def test_while_the_accounting_is_away_reports_wait(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, _ = people
    job = cluster.slurm.submit("true", "-wn2", "--gres=gpu:1", user=alice)
    cluster.slurm.wait_job(job)
    cluster.slurm.wait_nodes_idle()
    cluster.slurm.stop_accounting()
    # It is no failure of the node.
    assert cluster.health_check("n2").returncode == 0
    assert len(reports(cluster, "n2")) == 1
    cluster.slurm.restart_accounting()
    assert comment_of(cluster, str(job), "n2").lower().startswith("canhazgpu: gpu ")
