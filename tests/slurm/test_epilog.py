"""What a job leaves on its GPUs, on a real Slurm that does not track processes by cgroup."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster, hook_pid, kill_hook
from polling import poll_until

from demo_cluster import ClusterSpec
from fake_nvml import start_gpu_process

pytestmark = [pytest.mark.parts(2), pytest.mark.release]
QUICK = {"settle_s": 2.0}
PATIENT = {"settle_s": 200.0}
"""It never runs out: a busy machine may need half a minute to free what is waited for."""


@pytest.fixture(scope="module", params=["direct", "agent"])
def cluster(make_cluster: Any, request: pytest.FixtureRequest) -> GpuCluster:
    spec = ClusterSpec(nodes=1, gpus_per_node=4)
    return make_cluster(spec, way=request.param, slurm={"assignment": "slurm"}, epilog=QUICK)


@pytest.fixture(autouse=True)
def _free_and_up_at_the_end(cluster: GpuCluster, people: tuple[str, str]) -> Iterator[None]:
    yield
    cluster.configure(slurm={"assignment": "slurm"}, epilog=QUICK)
    cluster.cancel_jobs()
    for pid in left_by(cluster, people):
        os.kill(pid, signal.SIGKILL)
    for gpu in cluster.state.node("n1").gpus:
        gpu.override_used(None)
        lift(cluster, gpu.uuid)
    cluster.slurm.wait_nodes_idle()
    assert cluster.held() == {}


def begun_job(cluster: GpuCluster, user: str) -> int:
    """Submit a job with a GPU and wait until its task runs: its prolog looks no more.

    A GPU is shown as held before the prolog's second look at it.
    """
    job = cluster.slurm.submit("echo STARTED; sleep 600", "--gres=gpu:1", user=user)
    poll_until(lambda: "STARTED" in cluster.slurm.output(job, user=user))
    return job


def lift(cluster: GpuCluster, gpu: str) -> None:
    change = (
        "import sys\n"
        "from canhazgpu.config.schema import StoreConfig\n"
        "from canhazgpu.ledger.store.connect import Role\n"
        "from canhazgpu.ledger.store.ledger import RedisLedger\n"
        "ledger = RedisLedger(StoreConfig(url='embedded', embedded_dir=sys.argv[1]), Role.WRITE)\n"
        "ledger.unquarantine('n1', sys.argv[2], 'test')\n"
    )
    cluster.run_python(change, gpu)


def left_by(cluster: GpuCluster, people: tuple[str, ...]) -> list[int]:
    """The processes on GPUs that a job of these people has put into a session of their own.

    A Debian of another suite beside this machine's has users of the same uids.
    """
    program, found = os.fsencode(cluster.gpu_process()), []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
            if program in command.split(b"\0") and entry.owner() in people:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def leaves(cluster: GpuCluster, then: str = "") -> str:
    """A script whose process is nobody's child at its end, and in no session of the job's."""
    return (
        f"(setsid {cluster.gpu_process()} --memory-mb 3000 --seconds 600 >/dev/null 2>&1 &)\n"
        f"sleep 1.5\n{then}\n"
    )


def run_job(cluster: GpuCluster, user: str, script: str) -> int:
    job = cluster.slurm.submit(script, "--gres=gpu:1", user=user)
    assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"
    cluster.slurm.wait_nodes_idle()
    assert str(job) not in cluster.held().values()
    return job


def log_of(cluster: GpuCluster, job: int) -> list[str]:
    lines = cluster.slurm.log("n1").splitlines()
    return [line for line in lines if f"canhazgpu: job {job}:" in line]


def state_of(cluster: GpuCluster, place: int) -> dict[str, Any]:
    return cluster.status()["n1"][cluster.uuids_of_positions("n1")[place]]


def test_what_a_job_left_behind_is_ended(cluster: GpuCluster, people: tuple[str, str]) -> None:
    job = run_job(cluster, people[0], leaves(cluster))
    assert left_by(cluster, people) == []
    assert state_of(cluster, 0)["state"] == "available"
    (line,) = log_of(cluster, job)
    assert f"of {people[0]} on GPU" in line and line.endswith("ended: the job left it there")


def test_it_may_be_reported_only(cluster: GpuCluster, people: tuple[str, str]) -> None:
    cluster.configure(epilog={"leftovers": "report"})
    job = run_job(cluster, people[0], leaves(cluster))
    (pid,) = left_by(cluster, people)
    assert state_of(cluster, 0)["state"] == "unreserved"
    assert f"PID {pid} " in log_of(cluster, job)[0]
    assert log_of(cluster, job)[0].endswith("stays: epilog.leftovers is report")


def test_a_user_with_another_job_here_keeps_his_processes(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    # Which of a user's two jobs a process is of cannot be told without cgroups.
    other = cluster.slurm.submit("sleep 60", user=people[0])
    cluster.slurm.wait_job(other, states=("RUNNING",))
    job = cluster.slurm.submit(leaves(cluster), "--gres=gpu:1", user=people[0])
    cluster.slurm.wait_job(job)
    poll_until(lambda: cluster.held() == {})
    assert len(left_by(cluster, people)) == 1
    assert log_of(cluster, job)[0].endswith(f"stays: another job of {people[0]} is here")


def test_an_intruder_is_none_of_the_jobs_leftovers(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, bob = people
    job = begun_job(cluster, alice)
    first = cluster.uuids_of_positions("n1")[0]
    gpu = next(gpu for gpu in cluster.state.node("n1").gpus if gpu.uuid == first)
    with start_gpu_process(gpu, 8000, user=bob) as process:
        cluster.slurm.run(["scancel", str(job)], check=True)
        cluster.slurm.wait_job(job)
        cluster.slurm.wait_nodes_idle()
        assert process.alive
        assert state_of(cluster, 0)["state"] == "unreserved"
    assert log_of(cluster, job)[0].endswith(f"stays: it is {bob}'s")


def test_memory_that_stays_quarantines_the_gpu_and_not_the_node(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, _ = people
    first = cluster.uuids_of_positions("n1")[0]
    gpu = next(gpu for gpu in cluster.state.node("n1").gpus if gpu.uuid == first)
    job = begun_job(cluster, alice)
    gpu.override_used(8045)
    cluster.slurm.run(["scancel", str(job)], check=True)
    cluster.slurm.wait_job(job)
    cluster.slurm.wait_nodes_idle()
    shown = state_of(cluster, 0)
    assert shown["state"] == "quarantined"
    assert cluster.slurm.node_states()["n1"].lower().startswith("idle")
    assert f"is quarantined: job {job} of {alice} left 8045MB" in log_of(cluster, job)[0]
    # Even once the memory is free, until somebody lifts it; the node's other GPUs take jobs.
    gpu.override_used(None)
    sent_back = cluster.slurm.submit("echo STARTED", "--gres=gpu:1", user=alice)
    poll_until(lambda: cluster.slurm.job(sent_back).get("Reason") == "BeginTime")
    cluster.configure(slurm={"on_conflict": "swap"})
    run_job(cluster, alice, "echo STARTED")


def test_memory_that_is_freed_late_is_waited_for(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    cluster.configure(epilog=PATIENT, slurm={"hook_deadline_s": 300.0})
    first = cluster.uuids_of_positions("n1")[0]
    gpu = next(gpu for gpu in cluster.state.node("n1").gpus if gpu.uuid == first)
    job = begun_job(cluster, people[0])
    gpu.override_used(8045)
    cluster.slurm.run(["scancel", str(job)], check=True)
    poll_until(lambda: hook_pid(cluster, "epilog", job))
    time.sleep(2)
    assert cluster.held() == {first: str(job)}
    gpu.override_used(None)
    cluster.slurm.wait_nodes_idle()
    assert state_of(cluster, 0)["state"] == "available"
    assert log_of(cluster, job) == []


def test_an_epilog_killed_while_it_waits_is_made_good_by_the_next_hook(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    cluster.configure(epilog=PATIENT, slurm={"hook_deadline_s": 300.0})
    first, *_ = cluster.uuids_of_positions("n1")
    gpu = next(gpu for gpu in cluster.state.node("n1").gpus if gpu.uuid == first)
    job = begun_job(cluster, people[0])
    gpu.override_used(8045)
    cluster.slurm.run(["scancel", str(job)], check=True)
    # An agent's process that dies is followed by the hook itself.
    kill_hook(cluster, "epilog", job, times=1 if cluster.agents is None else 2)
    cluster.slurm.wait_nodes_idle()
    assert cluster.held() == {first: str(job)}
    cluster.configure(slurm={"on_conflict": "swap"})
    later = cluster.slurm.submit("sleep 600", "--gres=gpu:1", user=people[0])
    poll_until(lambda: list(cluster.held().values()) == [str(later)])
    assert first not in cluster.held()
    cluster.slurm.run(["scancel", str(later)], check=True)
    cluster.slurm.wait_job(later)
