"""Slurm's devices are binding here: a job whose GPU is taken is sent back and its user told why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from polling import poll_until

from demo_cluster import ClusterSpec
from fake_nvml import Process, start_gpu_process

pytestmark = pytest.mark.release


@pytest.fixture(scope="module", params=["direct", "agent"])
def cluster(make_cluster: Any, request: pytest.FixtureRequest) -> GpuCluster:
    spec = ClusterSpec(nodes=2, gpus_per_node=2)
    return make_cluster(spec, way=request.param, slurm={"assignment": "slurm"})


@pytest.fixture(autouse=True)
def _free_and_up_at_the_end(cluster: GpuCluster) -> Iterator[None]:
    yield
    cluster.slurm.run(["scancel", "--state=PENDING", "--me"], user="root")
    cluster.cancel_jobs()
    cluster.slurm.wait_nodes_idle()
    cluster.settle()
    assert cluster.held("n1") == {} and cluster.held("n2") == {}


@pytest.fixture
def intruder(cluster: GpuCluster, people: tuple[str, str]) -> Iterator[Process]:
    """bob's process on the first GPU that Slurm counts on n1."""
    first = cluster.uuids_of_positions("n1")[0]
    gpu = next(gpu for gpu in cluster.state.node("n1").gpus if gpu.uuid == first)
    with start_gpu_process(gpu, 8000, user=people[1], name="python3") as process:
        yield process


def test_a_batch_job_is_requeued_and_told_who_is_in_the_way(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    alice, bob = people
    job = cluster.slurm.submit("echo STARTED", "--gres=gpu:1", "-wn1", user=alice)
    fields = poll_until(
        lambda: (found := cluster.slurm.job(job)).get("Reason") == "BeginTime" and found
    )

    assert fields["JobState"] == "PENDING" and fields["Restarts"] == "1"
    comment = cluster.slurm.run(["scontrol", "show", "job", str(job)]).stdout
    assert f"in use by {bob} WITHOUT RESERVATION" in comment
    assert f"PID {intruder.pid} (python3)" in comment
    assert cluster.slurm.output(job, user=alice) == ""
    assert cluster.slurm.node_states()["n1"].lower().startswith("idle")
    log = [line for line in cluster.slurm.log("n1").splitlines() if "canhazgpu:" in line]
    assert f"job {job}: " in log[-1] and log[-1].endswith("job requeued")


def test_a_free_gpu_beside_the_intruder_is_granted(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    alice, _ = people
    blocker = cluster.slurm.submit("sleep 30", "--gres=gpu:1", "-wn2", user=alice)
    cluster.slurm.wait_job(blocker, states=("RUNNING",))
    assert len(poll_until(lambda: cluster.held("n2"))) == 1
    state = cluster.status("n1")["n1"][cluster.uuids_of_positions("n1")[0]]
    assert state["state"] == "unreserved"
    assert f"PID {intruder.pid} (python3)" in state["validation"]


def test_an_interactive_job_is_told_and_ended(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    alice, bob = people
    done = cluster.slurm.run(["srun", "-wn1", "--gres=gpu:1", "echo", "STARTED"], user=alice)

    assert done.returncode != 0
    assert "STARTED" not in done.stdout
    assert f"in use by {bob} WITHOUT RESERVATION" in done.stderr
    cluster.slurm.wait_nodes_idle()


def test_a_job_that_may_not_be_requeued_is_ended(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    alice, _ = people
    job = cluster.slurm.submit("echo STARTED", "--gres=gpu:1", "-wn1", "--no-requeue", user=alice)
    assert cluster.slurm.wait_job(job)["JobState"] == "CANCELLED"
    assert cluster.slurm.output(job, user=alice) == ""


def test_the_other_tasks_of_an_array_are_left_alone(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, bob = people
    # The last task bears the array's own id: the one whose requeue must not hit the others.
    job = cluster.slurm.submit(
        "echo STARTED >>task-$SLURM_ARRAY_TASK_ID; sleep 20",
        *("--gres=gpu:1", "-wn1", "--array=1-2%1"),
        user=alice,
    )
    poll_until(lambda: len(cluster.held("n1")) == 1)
    free = next(gpu for gpu in cluster.state.node("n1").gpus if gpu.uuid not in cluster.held("n1"))
    with start_gpu_process(free, 8000, user=bob, name="python3"):
        cluster.slurm.run(["scontrol", "update", f"job={job}", "ArrayTaskThrottle=2"], check=True)
        poll_until(
            lambda: "canhazgpu" in cluster.slurm.run(["scontrol", "show", "job", str(job)]).stdout
        )
        show = ["squeue", "-h", "-r", "-o", "%K %T"]
        poll_until(
            lambda: (
                sorted(cluster.slurm.run(show).stdout.split("\n")) == ["", "1 RUNNING", "2 PENDING"]
            )
        )
    assert (cluster.slurm.home(alice) / "task-1").read_text() == "STARTED\n"
    assert not (cluster.slurm.home(alice) / "task-2").exists()


def test_all_of_a_two_node_job_is_requeued_when_one_node_conflicts(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    alice, _ = people
    job = cluster.slurm.submit("srun echo STARTED", "-N2", "--gres=gpu:2", user=alice)
    poll_until(lambda: cluster.slurm.job(job).get("Reason") == "BeginTime")
    poll_until(lambda: cluster.held("n2") == {})
    assert cluster.held("n1") == {}


def test_a_gpu_that_cannot_be_read_is_not_granted(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, _ = people
    node = cluster.state.node("n1")
    node.inject("nvmlDeviceGetMemoryInfo", return_=15)
    try:
        job = cluster.slurm.submit("echo STARTED", "--gres=gpu:1", "-wn1", user=alice)
        poll_until(lambda: cluster.slurm.job(job).get("Reason") == "BeginTime")
        comment = cluster.slurm.run(["scontrol", "show", "job", str(job)]).stdout
    finally:
        node.clear_injections()
    assert "cannot be read" in comment


def test_a_hanging_driver_does_not_hang_the_job_start(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, _ = people
    node = cluster.state.node("n1")
    cluster.configure(validation={"scan_timeout_s": 1})
    node.inject("nvmlDeviceGetMemoryInfo", hang=True)
    try:
        job = cluster.slurm.submit("echo STARTED", "--gres=gpu:1", "-wn1", user=alice)
        poll_until(lambda: cluster.slurm.job(job).get("Reason") == "BeginTime")
        comment = cluster.slurm.run(["scontrol", "show", "job", str(job)]).stdout
    finally:
        node.clear_injections()
        cluster.configure(validation={"scan_timeout_s": 10})
    assert "no answer within 1 s" in comment
