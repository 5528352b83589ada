"""Jobs that Slurm starts without their prolog: their tasks have the node's agent check them first.

No user's code runs on a GPU that nobody checked.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster, kill_hook
from clusters.silent_scripts import silent
from polling import poll_until

from canhazgpu.schedulers.slurm.node_check.unchecked_jobs import MIN_AGE_S, WITHOUT_GPUS_FILE
from demo_cluster import ClusterSpec
from fake_nvml import start_gpu_process

NODE = "n1"
REQUEUES = 6
GIVEN_UP = {-1: ""}
SEEN = 'echo "SEEN ${CUDA_VISIBLE_DEVICES-unset} ${CANHAZGPU_GPUS-unset}"'
KINDS = {
    "constrained": {"constrain_devices": True},
    "unconstrained": {"constrain_devices": False},
}


@pytest.fixture(scope="module", params=list(KINDS))
def cluster(request: pytest.FixtureRequest, make_cluster: Any) -> GpuCluster:
    spec = ClusterSpec(nodes=1, gpus_per_node=4, **KINDS[request.param])
    made: GpuCluster = make_cluster(spec, way="agent")
    # The agent knows Slurm's configuration from the first hook.
    made.health_check(NODE)
    return made


@pytest.fixture(autouse=True)
def _nothing_left(cluster: GpuCluster) -> Iterator[None]:
    yield
    cluster.cancel_jobs()
    cluster.slurm.wait_nodes_idle()
    poll_until(lambda: cluster.held() == {})


@contextlib.contextmanager
def without_prolog(cluster: GpuCluster) -> Iterator[None]:
    """No prolog of canhazgpu's runs inside the block, as before its installation."""
    scripts = sorted((cluster.root / "etc" / "slurm" / "prolog.d").iterdir())
    texts = {path: path.read_text() for path in scripts}
    for path in scripts:
        path.write_text("#!/bin/sh\nexit 0\n")
    try:
        yield
    finally:
        for path, text in texts.items():
            path.write_text(text)


@contextlib.contextmanager
def without_task_prolog(cluster: GpuCluster) -> Iterator[None]:
    path = cluster.root / "etc" / "slurm" / "canhazgpu" / "task_prolog.sh"
    with silent(path):
        yield


def job_checks(cluster: GpuCluster) -> int:
    assert cluster.agents is not None
    return int(cluster.agents.status(NODE)["served"].get("CheckJob", 0))


def seen_gpus(output: str) -> list[str]:
    """What each task saw as CANHAZGPU_GPUS."""
    lines = (line.split() for line in output.splitlines())
    return [words[2] for words in lines if words[:1] == ["SEEN"]]


@pytest.mark.release
def test_a_job_without_a_prolog_is_checked_before_its_code_runs(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    before = job_checks(cluster)
    with without_prolog(cluster):
        job = cluster.slurm.submit(f"{SEEN}; sleep 300", "--gres=gpu:2", user=people[0])
        output = poll_until(lambda: cluster.slurm.output(job, user=people[0]))

    (gpus,) = seen_gpus(output)
    assert cluster.held() == dict.fromkeys(gpus.split(","), str(job))
    assert len(cluster.held()) == 2
    assert job_checks(cluster) == before + 1


def test_the_tasks_of_a_job_have_it_checked_once(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    before = job_checks(cluster)
    with without_prolog(cluster):
        done = cluster.slurm.run(
            ["srun", "-n6", "--gres=gpu:2", "sh", "-c", SEEN], user=people[0], check=True
        )
    seen = seen_gpus(done.stdout)
    assert len(seen) == 6 and len({*seen}) == 1 and "unset" not in seen
    assert job_checks(cluster) > before


@pytest.mark.release
def test_a_job_whose_gpu_is_in_use_is_sent_back_before_its_code_runs(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, bob = people
    with contextlib.ExitStack() as stack:
        for gpu in cluster.state.node(NODE).gpus:
            stack.enter_context(start_gpu_process(gpu, 8000, user=bob))
        with without_prolog(cluster):
            job = cluster.slurm.submit("echo RAN", "--gres=gpu:1", user=alice)
            poll_until(lambda: cluster.slurm.job(job).get("Reason") == "BeginTime")
            refused = cluster.slurm.run(["srun", "--gres=gpu:1", "echo", "RAN"], user=alice)
        shown = cluster.slurm.job(job)

    assert shown["JobState"] == "PENDING" and shown["Restarts"] == "1"
    assert "WITHOUT RESERVATION" in shown["Comment"]
    assert "RAN" not in cluster.slurm.output(job, user=alice)
    # One that cannot be requeued is ended.
    told = refused.stdout + refused.stderr
    assert (refused.returncode != 0, "RAN" in refused.stdout) == (True, False), told
    assert cluster.held() == {}


def test_a_prolog_that_is_killed_twice_leaves_no_job_unchecked(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    node = cluster.state.node(NODE)
    node.inject("nvmlDeviceGetMemoryInfo", delay_ms=700)
    try:
        job = cluster.slurm.submit(f"{SEEN}; sleep 300", "--gres=gpu:1", user=people[0])
        kill_hook(cluster, "prolog", job, times=2)
    finally:
        node.clear_injections()
    output = poll_until(lambda: cluster.slurm.output(job, user=people[0]))

    (gpu,) = seen_gpus(output)
    assert cluster.held() == {gpu: str(job)}


def test_hooks_that_are_installed_while_a_job_runs(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, _ = people
    go = cluster.root / "go"
    with without_prolog(cluster), without_task_prolog(cluster):
        job = cluster.slurm.submit(
            f"echo BEGAN; while [ ! -e {go} ]; do sleep 0.1; done; srun sh -c '{SEEN}'; sleep 300",
            "--gres=gpu:1",
            user=alice,
        )
        poll_until(lambda: "BEGAN" in cluster.slurm.output(job, user=alice))
    assert cluster.held() == {}

    # What the job does on its GPU meanwhile is no obstacle to itself.
    with contextlib.ExitStack() as stack:
        for gpu in cluster.state.node(NODE).gpus:
            stack.enter_context(start_gpu_process(gpu, 8000, user=alice))
        go.touch()
        output = poll_until(
            lambda: "SEEN" in (found := cluster.slurm.output(job, user=alice)) and found
        )
        go.unlink()

    (gpu,) = seen_gpus(output)
    assert cluster.held() == {gpu: str(job)}
    assert cluster.slurm.job(job)["JobState"] == "RUNNING"


def unheard_job(cluster: GpuCluster, user: str) -> int:
    """A job that runs longer than a health check waits for its prolog, and that nobody checked."""
    with without_prolog(cluster), without_task_prolog(cluster):
        job = cluster.slurm.submit("echo BEGAN; sleep 300", "--gres=gpu:1", user=user)
        poll_until(lambda: "BEGAN" in cluster.slurm.output(job, user=user))
    assert cluster.held() == {}
    for path in (cluster.slurm.layout.state / NODE).glob(f"{NODE}_{job}.*"):
        os.utime(path, (time.time() - 2 * MIN_AGE_S,) * 2)
    return job


def test_the_health_check_checks_a_job_that_could_not_ask(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    job = unheard_job(cluster, people[0])

    cluster.health_check(NODE)

    (gpu,) = cluster.held()
    assert cluster.held() == {gpu: str(job)}
    assert cluster.slurm.job(job)["JobState"] == "RUNNING"
    cluster.health_check(NODE)
    assert cluster.held() == {gpu: str(job)}


def test_the_health_check_sends_back_a_job_that_could_not_ask_and_is_not_alone(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, bob = people
    job = unheard_job(cluster, alice)
    with contextlib.ExitStack() as stack:
        for gpu in cluster.state.node(NODE).gpus:
            stack.enter_context(start_gpu_process(gpu, 8000, user=bob))
        cluster.health_check(NODE)
        poll_until(lambda: cluster.slurm.job(job).get("Reason") == "BeginTime")
        assert "WITHOUT RESERVATION" in cluster.slurm.job(job)["Comment"]
    assert cluster.held() == {}


def test_a_job_without_gpus_is_asked_about_once(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    job = cluster.slurm.submit("echo BEGAN; sleep 300", user=people[0])
    poll_until(lambda: "BEGAN" in cluster.slurm.output(job, user=people[0]))
    for path in (cluster.slurm.layout.state / NODE).glob(f"{NODE}_{job}.*"):
        os.utime(path, (time.time() - 2 * MIN_AGE_S,) * 2)
    record = cluster.root / "run" / NODE / WITHOUT_GPUS_FILE
    cluster.health_check(NODE)
    assert json.loads(record.read_text()) == [str(job)]
    inode = record.stat().st_ino
    cluster.health_check(NODE)
    assert record.stat().st_ino == inode
    cluster.cancel_jobs()
    cluster.slurm.wait_nodes_idle()
    cluster.health_check(NODE)
    assert json.loads(record.read_text()) == []


def test_starts_after_a_requeue_are_all_checked(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    """slurmd runs no prolog for most of them: it reissues the credential of the run before."""
    alice, _ = people
    script = f'echo "RUN ${{SLURM_RESTART_COUNT:-0}}"; {SEEN}; sleep 300'
    job, last, restarts = 0, -1, 0
    for _ in range(REQUEUES):
        if not job:
            job = cluster.slurm.submit(script, "--gres=gpu:1", "--open-mode=append", user=alice)
        runs = poll_until(lambda one=job, known=last: later_runs(cluster, one, alice, known))
        if runs == GIVEN_UP:
            job, last = 0, -1
            continue
        last = max(runs)
        restarts += last > 0
        assert cluster.held() == {runs[last]: str(job)}
        cluster.slurm.run(["scontrol", "requeue", str(job)], check=True)
        poll_until(lambda one=job: cluster.slurm.job(one)["JobState"] == "PENDING")
        # Within the second of the kill slurmd launches nothing.
        ended = int(time.time())
        poll_until(lambda second=ended: int(time.time()) > second)
        cluster.slurm.run(["scontrol", "update", f"job={job}", "StartTime=now"], check=True)
    assert restarts


def later_runs(cluster: GpuCluster, job: int, user: str, known: int) -> dict[int, str]:
    """The GPUs of all runs, once there is a later one than the `known`; until then nothing.

    `GIVEN_UP` where slurmd does not launch the job, which was killed within the same second.
    """
    runs = gpus_by_run(cluster, job, user)
    if max(runs, default=-1) > known:
        return runs
    return GIVEN_UP if cluster.slurm.job(job)["JobState"] == "FAILED" else {}


def gpus_by_run(cluster: GpuCluster, job: int, user: str) -> dict[int, str]:
    """The GPUs that each run of the job has told."""
    found, run = {}, -1
    for line in cluster.slurm.output(job, user=user).splitlines():
        words = line.split()
        if words[:1] == ["RUN"]:
            run = int(words[1])
        elif words[:1] == ["SEEN"]:
            found[run] = words[2]
    return found
