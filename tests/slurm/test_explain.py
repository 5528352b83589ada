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


@pytest.fixture
def few_requeues(cluster: GpuCluster) -> Iterator[None]:
    cluster.configure(slurm={"max_requeues": 1})
    yield
    cluster.configure()


def told_of(cluster: GpuCluster, job: int | str, user: str) -> str:
    return cluster.canhazgpu("explain", str(job), node="n1", user=user, check=False).stdout


def told_once(cluster: GpuCluster, job: int, user: str, phrase: str) -> str:
    """Wait until it is told that far."""
    return poll_until(lambda: said if phrase in (said := told_of(cluster, job, user)) else "")


def start_now(cluster: GpuCluster, job: int) -> None:
    """Let a requeued job run now rather than after Slurm's two minutes."""
    cluster.slurm.run(["scontrol", "update", f"job={job}", "StartTime=now+2"], check=True)


def assert_in_order(text: str, *phrases: str) -> None:
    place = 0
    for phrase in phrases:
        assert phrase in text[place:], f"{phrase!r} is not in its place in\n{text}"
        place = text.index(phrase, place) + len(phrase)


@pytest.mark.release
@pytest.mark.usefixtures("few_requeues")
def test_a_job_is_told_from_its_first_conflict_to_its_success(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, bob = people
    wanted = cluster.uuids_of_positions("n1")[0]
    gpu = next(one for one in cluster.state.node("n1").gpus if one.uuid == wanted)
    with start_gpu_process(gpu, 8000, user=bob, name="python3"):
        job = cluster.slurm.submit("true", "-wn1", "--gres=gpu:1", user=alice)
        poll_until(lambda: cluster.slurm.job(job).get("Reason") == "BeginTime")
        requeued = (
            "prolog of attempt 0: refused after",
            f"is in use by {bob} WITHOUT RESERVATION",
            "job requeued, requeue 1 of at most 1\n",
            "epilog of attempt 0: nothing to release",
        )
        # Until the epilog has ended, Slurm calls the job COMPLETING.
        text = told_once(cluster, job, alice, "Slurm: PENDING (BeginTime)")
        assert_in_order(text, *requeued, "Slurm: PENDING (BeginTime), it is tried again at 2")
        start_now(cluster, job)
        poll_until(lambda: cluster.slurm.job(job)["Restarts"] == "2")
        held = (
            "prolog of attempt 1: refused after",
            "job held after 1 requeue: it waits for 'scontrol release'\n",
            "epilog of attempt 1: nothing to release",
        )
        text = told_once(cluster, job, alice, "Slurm: PENDING, held (")
        release = f"'scontrol release {job}' lets it try again"
        assert_in_order(text, *requeued, *held, "Slurm: PENDING, held (", release)
        assert "attempt 2" not in text
    cluster.slurm.run(["scontrol", "release", str(job)], check=True)
    start_now(cluster, job)
    assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"
    cluster.slurm.wait_nodes_idle()
    success = (
        "grant of attempt 2",
        "prolog of attempt 2: granted",
        "epilog of attempt 2: released",
    )
    text = told_of(cluster, job, alice)
    assert_in_order(text, *requeued, *held, *success, "Slurm: COMPLETED at 2")
    assert "attempt 3" not in text and "Slurm requeued it" not in text


@pytest.mark.release
def test_a_requeue_by_an_administrator_is_told_as_such(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, _ = people
    script = '[ "${SLURM_RESTART_COUNT-0}" = 1 ] || sleep 600'
    job = cluster.slurm.submit(script, "-wn1", "--gres=gpu:1", user=alice)
    poll_until(lambda: cluster.held("n1"))
    cluster.slurm.wait_job(job, states=("RUNNING",))
    cluster.slurm.run(["scontrol", "requeue", str(job)], check=True)
    poll_until(lambda: cluster.slurm.job(job).get("Reason") == "BeginTime")
    cluster.slurm.wait_nodes_idle()
    start_now(cluster, job)
    assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"
    cluster.slurm.wait_nodes_idle()
    assert_in_order(
        told_of(cluster, job, alice),
        "epilog of attempt 0: released",
        "Slurm requeued it, not canhazgpu",
        "prolog of attempt 1: granted",
        "Slurm: COMPLETED at 2",
    )


def test_runs_and_reservations_are_told_by_their_owners(cluster: GpuCluster) -> None:
    user = "root"  # the embedded store's directory is root's
    cluster.canhazgpu("reserve", "--gpus", "1", "--duration", "1h", node="n1", user=user)
    cluster.canhazgpu("run", "--gpus", "1", "--", "true", node="n1", user=user)
    lines = cluster.canhazgpu("events", "--json", node="n1").stdout.splitlines()
    owners = {one["type"]: one["owner"] for one in map(json.loads, lines) if one["type"]}
    text = told_of(cluster, owners["manual"], user)
    assert_in_order(
        text, f"{owners['manual']} of {user}\n", "grant: GPU-", "holds GPU-", ", until 2"
    )
    cluster.canhazgpu("release", node="n1", user=user)
    text = told_of(cluster, owners["manual"], user)
    assert_in_order(text, "grant: GPU-", "release: GPU-", ": released by its owner")
    assert "holds" not in text
    poll_until(lambda: "run ended" in told_of(cluster, owners["run"], user))


def test_who_is_not_known_is_told_what_to_do(cluster: GpuCluster, people: tuple[str, str]) -> None:
    def refused(job: int) -> str:
        done = cluster.canhazgpu("explain", str(job), node="n1", user=people[0], check=False)
        assert done.returncode == 2
        return done.stderr

    assert "and Slurm does not know it: check the number with 'squeue --me'" in refused(987654)
    job = cluster.slurm.submit("true", user=people[0])
    cluster.slurm.wait_job(job)
    assert "but Slurm knows it: it has not begun, or asks for no GPUs" in refused(job)


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
