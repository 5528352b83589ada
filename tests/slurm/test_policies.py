"""Every policy for conflicts, seen on a real Slurm: what becomes of job, node and intruder."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster, kill_hook, poll_until

from demo_cluster import ClusterSpec
from fake_nvml import Process, start_gpu_process

pytestmark = pytest.mark.parts(3)
SHOW = "echo GPUS=$CUDA_VISIBLE_DEVICES\n"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of the policies' outcomes, those of each release of Slurm, with agents too."""
    if "way" in metafunc.fixturenames:
        is_outcome = metafunc.definition.get_closest_marker("release") is not None
        ways = ["direct", "agent"] if is_outcome else ["direct"]
        metafunc.parametrize("way", ways, scope="module")


@pytest.fixture(scope="module")
def cluster(make_cluster: Any, way: str) -> GpuCluster:
    debug = "PartitionName=debug Nodes=n1,n2 State=UP"
    spec = ClusterSpec(nodes=2, gpus_per_node=2, slurm_conf_extra=debug)
    return make_cluster(spec, way=way, slurm={"assignment": "slurm"})


@pytest.fixture(autouse=True)
def _free_and_up_at_the_end(cluster: GpuCluster) -> Iterator[None]:
    yield
    cluster.configure(slurm={"assignment": "slurm"})
    for job in cluster.slurm.run(["squeue", "-h", "-r", "-o", "%i"]).stdout.split():
        cluster.slurm.run(["scancel", job])
    for node, state in cluster.slurm.node_states().items():
        if "drain" in state.lower():
            cluster.slurm.run(["scontrol", "update", f"nodename={node}", "state=resume"])
    cluster.slurm.wait_nodes_idle()
    cluster.settle()
    assert cluster.held("n1") == {} and cluster.held("n2") == {}


def policy(cluster: GpuCluster, on_conflict: str, **slurm: Any) -> None:
    cluster.configure(slurm={"on_conflict": on_conflict, **slurm})


def gpu_of_position(cluster: GpuCluster, place: int, node: str = "n1") -> Any:
    uuid = cluster.uuids_of_positions(node)[place]
    return next(gpu for gpu in cluster.state.node(node).gpus if gpu.uuid == uuid)


@pytest.fixture
def intruder(cluster: GpuCluster, people: tuple[str, str]) -> Iterator[Process]:
    """bob's process on the first GPU that Slurm counts on n1."""
    with start_gpu_process(gpu_of_position(cluster, 0), 8000, user=people[1]) as process:
        yield process


def submit(cluster: GpuCluster, user: str, *args: str, script: str = SHOW) -> int:
    return cluster.slurm.submit(script, "--gres=gpu:1", "-wn1", *args, user=user)


def requeued(cluster: GpuCluster, job: int) -> dict[str, str]:
    return poll_until(
        lambda: (found := cluster.slurm.job(job)).get("Reason") == "BeginTime" and found
    )


def pending(cluster: GpuCluster, job: int) -> None:
    poll_until(lambda: cluster.slurm.job(job)["Restarts"] == "1")
    poll_until(lambda: cluster.slurm.job(job)["JobState"] == "PENDING")


def until_begun(cluster: GpuCluster, job: int, node: str = "n1") -> Path:
    """Wait until the prolog is at work; returns the node's record."""
    record = cluster.root / "run" / node / "jobs" / f"{job}.json"
    poll_until(record.exists)
    return record


def shown(cluster: GpuCluster, job: int) -> str:
    return cluster.slurm.run(["scontrol", "show", "job", str(job)]).stdout


def log_of(cluster: GpuCluster, job: int, node: str = "n1") -> list[str]:
    return [
        line for line in cluster.slurm.log(node).splitlines() if f"canhazgpu: job {job}:" in line
    ]


def start_now(cluster: GpuCluster, job: int) -> None:
    """Let a requeued job run now rather than after Slurm's two minutes."""
    cluster.slurm.run(["scontrol", "update", f"job={job}", "StartTime=now+2"], check=True)


def assert_completed(cluster: GpuCluster, job: int, restarts: int = 0) -> None:
    ended = cluster.slurm.wait_job(job)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", str(restarts)), ended


@contextmanager
def reserved(cluster: GpuCluster, gpu: str, user: str, node: str = "n1") -> Iterator[None]:
    """A person's reservation for an hour, put into the ledger."""
    change = (
        "import sys\n"
        "from canhazgpu.config.schema import StoreConfig\n"
        "from canhazgpu.gpu.scan import GpuReading, Scan\n"
        "from canhazgpu.ledger.port import Observation\n"
        "from canhazgpu.ledger.store.connect import Role\n"
        "from canhazgpu.ledger.store.ledger import RedisLedger\n"
        "from canhazgpu.ledger.values import Claim\n"
        "store, action, node, gpu, user = sys.argv[1:]\n"
        "ledger = RedisLedger(StoreConfig(url='embedded', embedded_dir=store), Role.WRITE)\n"
        "if action == 'release':\n"
        "    print(ledger.release(node, 'manual:test', 'released'))\n"
        "else:\n"
        "    claim = Claim('manual:test', 'manual', user, duration_s=3600.0)\n"
        "    scan = Scan(node, 0.0, 0.0, (GpuReading(0, gpu, 0, 'GPU', 1, 2),))\n"
        "    print(ledger.reserve_given(claim, [gpu], Observation(scan, 0.0)))\n"
    )
    cluster.run_python(change, "reserve", node, gpu, user)
    try:
        yield
    finally:
        cluster.run_python(change, "release", node, gpu, user)


def test_a_job_waits_until_the_intruder_has_left(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    policy(cluster, "wait:20,requeue")
    job = submit(cluster, people[0])
    until_begun(cluster, job)
    time.sleep(2)
    intruder.kill()
    assert_completed(cluster, job)
    assert "GPUS=GPU-" in cluster.slurm.output(job, user=people[0])
    assert "job starts" in log_of(cluster, job)[-1]


def test_a_wait_that_runs_out_requeues_the_job(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    policy(cluster, "wait:2,requeue")
    job = submit(cluster, people[0])
    requeued(cluster, job)
    comment = shown(cluster, job)
    assert f"Comment=canhazgpu: requeue 1/20: GPU {gpu_of_position(cluster, 0).index} (" in comment
    assert f"PID {intruder.pid} (python3) (since 2" in comment
    assert cluster.slurm.output(job, user=people[0]) == ""


def test_a_long_wait_is_no_reason_for_slurm_to_give_the_job_up(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    # Longer than Slurm's BatchStartTimeout of 10 s.
    policy(cluster, "wait:25,requeue")
    job = submit(cluster, people[0])
    until_begun(cluster, job)
    time.sleep(18)
    assert intruder.exit_status is None
    assert cluster.slurm.job(job)["JobState"] == "RUNNING"
    intruder.kill()
    assert_completed(cluster, job)


@pytest.mark.release
def test_a_job_runs_on_another_gpu(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    policy(cluster, "swap,requeue")
    job = submit(cluster, people[0])
    assert_completed(cluster, job)
    _, second = cluster.uuids_of_positions("n1")
    assert cluster.slurm.output(job, user=people[0]) == f"GPUS={second}\n"
    assert intruder.exit_status is None


def test_jobs_that_were_swapped_never_share(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    policy(cluster, "swap,requeue")
    jobs = [submit(cluster, people[0], script=f"{SHOW}sleep 5") for _ in range(2)]
    # Slurm gives the second job the very GPU that the first one was swapped to.
    poll_until(lambda: any(cluster.slurm.job(job).get("Reason") == "BeginTime" for job in jobs))
    outputs = [cluster.slurm.output(job, user=people[0]) for job in jobs]
    assert sorted(map(bool, outputs)) == [False, True]


def test_the_intruder_is_ended_and_the_job_runs(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    policy(cluster, "kill,requeue")
    job = submit(cluster, people[0])
    assert_completed(cluster, job)
    assert intruder.wait(timeout_s=5) == -signal.SIGTERM
    assert any(
        f"ended PID {intruder.pid} (python3) of {people[1]}" in line
        for line in log_of(cluster, job)
    )


def test_a_protected_users_process_is_not_ended(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    policy(cluster, "kill,requeue", protected_users=[people[1]])
    job = submit(cluster, people[0])
    requeued(cluster, job)
    assert intruder.exit_status is None


@pytest.mark.release
def test_a_process_of_a_job_without_gpus_is_not_ended(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, bob = people
    policy(cluster, "kill,requeue")
    first = gpu_of_position(cluster, 0)
    script = f"{cluster.gpu_process()} --memory-mb 4000 --gpu {first.index} --seconds 60"
    other = cluster.slurm.submit(script, "-wn1", user=bob)
    poll_until(lambda: cluster.status("n1")["n1"][first.uuid]["processes"])
    job = submit(cluster, alice)
    requeued(cluster, job)
    assert cluster.slurm.job(other)["JobState"] == "RUNNING"
    assert f"in use by {bob} WITHOUT RESERVATION" in shown(cluster, job)


@pytest.mark.release
def test_a_job_is_held_after_its_last_requeue_and_runs_once_released(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    policy(cluster, "requeue", max_requeues=1)
    job = submit(cluster, people[0])
    requeued(cluster, job)
    start_now(cluster, job)
    poll_until(lambda: cluster.slurm.job(job)["Restarts"] == "2")
    # Slurm sets the hold at once. It requeues, with a begin of its own, once the node is idle.
    cluster.slurm.wait_nodes_idle()
    assert "held" in cluster.slurm.job(job)["Reason"].lower()
    assert f"'scontrol release {job}' lets it try again: GPU" in shown(cluster, job)
    intruder.kill()
    cluster.slurm.run(["scontrol", "release", str(job)], check=True)
    start_now(cluster, job)
    assert_completed(cluster, job, restarts=2)


def test_requeues_by_others_do_not_count(cluster: GpuCluster, people: tuple[str, str]) -> None:
    policy(cluster, "requeue", max_requeues=1)
    job = submit(cluster, people[0], script="sleep 60")
    cluster.slurm.wait_job(job, states=("RUNNING",))
    poll_until(lambda: cluster.held("n1"))
    cluster.slurm.run(["scontrol", "requeue", str(job)], check=True)
    requeued(cluster, job)
    with start_gpu_process(gpu_of_position(cluster, 0), 8000, user=people[1]):
        start_now(cluster, job)
        poll_until(lambda: "canhazgpu: requeue 1/1: " in shown(cluster, job))
        assert requeued(cluster, job)["Restarts"] == "2"


@pytest.mark.release
def test_a_node_is_drained_with_our_reason_and_put_back_by_hand(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    policy(cluster, "drain")
    job = submit(cluster, people[0])
    pending(cluster, job)
    poll_until(lambda: cluster.slurm.node_states()["n1"] == "idle+drain")
    node = cluster.slurm.run(["scontrol", "show", "node", "n1"]).stdout
    assert f"Reason=canhazgpu: job {job}: GPU" in node
    assert f"in use by {people[1]} WITHOUT RESERVATION" in node
    assert cluster.slurm.node_states()["n2"].lower().startswith("idle")
    intruder.kill()
    cluster.slurm.run(["scontrol", "update", "nodename=n1", "state=resume"], check=True)
    start_now(cluster, job)
    assert_completed(cluster, job, restarts=1)


def test_a_reason_that_an_administrator_gave_is_kept(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    policy(cluster, "wait:3,drain")
    job = submit(cluster, people[0])
    until_begun(cluster, job)
    mine = ["scontrol", "update", "nodename=n1", "state=drain", "reason=new disk"]
    cluster.slurm.run(mine, check=True)
    pending(cluster, job)
    assert "Reason=new disk" in cluster.slurm.run(["scontrol", "show", "node", "n1"]).stdout


@pytest.mark.release
def test_a_job_runs_all_the_same_and_its_user_sees_why(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    alice, _ = people
    policy(cluster, "warn")
    job = submit(cluster, alice, script=f"{SHOW}sleep 5")
    first = cluster.uuids_of_positions("n1")[0]
    poll_until(lambda: cluster.held("n1") == {first: str(job)})
    poll_until(lambda: "Comment=canhazgpu: warning: GPU" in shown(cluster, job))
    assert_completed(cluster, job)
    warning, gpus = cluster.slurm.output(job, user=alice).splitlines()
    assert warning.startswith("canhazgpu: warning: GPU ") and people[1] in warning
    assert gpus == f"GPUS={first}"
    assert intruder.exit_status is None
    assert "job runs all the same" in log_of(cluster, job)[0]


@pytest.mark.release
def test_an_interactive_job_is_warned_on_its_terminal(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    policy(cluster, "requeue,warn")
    done = cluster.slurm.run(["srun", "-wn1", "--gres=gpu:1", "echo", "STARTED"], user=people[0])
    assert done.stdout == "STARTED\n"
    assert "canhazgpu: warning: GPU" in done.stderr and people[1] in done.stderr


def test_a_partition_has_its_own_policy(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    policy(cluster, "requeue", on_conflict_by_partition=["debug=warn"])
    warned = submit(cluster, people[0], "--partition=debug")
    assert_completed(cluster, warned)
    sent_back = submit(cluster, people[0], "--partition=main")
    requeued(cluster, sent_back)


def test_a_persons_reservation_is_told_with_its_end_and_waited_for(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, bob = people
    gpu = cluster.uuids_of_positions("n1")[0]
    policy(cluster, "kill,warn,requeue")
    with (
        reserved(cluster, gpu, bob),
        start_gpu_process(gpu_of_position(cluster, 0), 8000, user=bob) as process,
    ):
        job = submit(cluster, alice)
        requeued(cluster, job)
        assert process.alive
    comment = shown(cluster, job)
    assert f"is reserved by {bob} (manual, expires in 59m" in comment or "in 1h" in comment

    policy(cluster, "wait:25,requeue")
    with reserved(cluster, gpu, bob):
        start_now(cluster, job)
        cluster.slurm.wait_job(job, states=("RUNNING",))
        time.sleep(2)
    assert_completed(cluster, job, restarts=1)


def test_a_persons_gpu_is_swapped_for_another(cluster: GpuCluster, people: tuple[str, str]) -> None:
    alice, bob = people
    first, second = cluster.uuids_of_positions("n1")
    policy(cluster, "swap")
    with reserved(cluster, first, bob):
        job = submit(cluster, alice)
        assert_completed(cluster, job)
    assert cluster.slurm.output(job, user=alice) == f"GPUS={second}\n"


@pytest.mark.release
def test_all_of_a_heterogeneous_job_waits_when_one_part_conflicts(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    policy(cluster, "requeue")
    script = cluster.slurm.home(people[0]) / "het.sh"
    script.write_text("#!/bin/sh\necho STARTED\nsleep 60\n")
    parts = ["--gres=gpu:1", "-wn2", ":", "--gres=gpu:1", "-wn1"]
    done = cluster.slurm.run(["sbatch", *parts, str(script)], user=people[0], check=True)
    leader = int(done.stdout.split()[-1])
    show = ["squeue", "-h", "-o", "%i %T %r"]
    waiting = [f"{leader}+{part} PENDING BeginTime" for part in range(2)]
    poll_until(lambda: sorted(cluster.slurm.run(show).stdout.splitlines()) == waiting)
    poll_until(lambda: cluster.held("n2") == {} and cluster.held("n1") == {})
    comments = cluster.slurm.run(["squeue", "-h", "-o", "%k"]).stdout.splitlines()
    assert len(comments) == 2
    assert all(comment.startswith("canhazgpu: requeue 1/20: ") for comment in comments)


def test_two_conflicts_of_one_job_count_once(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    policy(cluster, "requeue")
    with start_gpu_process(gpu_of_position(cluster, 0, "n2"), 8000, user=people[1]):
        job = cluster.slurm.submit("srun echo STARTED", "-N2", "--gres=gpu:2", user=people[0])
        requeued(cluster, job)
        poll_until(lambda: log_of(cluster, job, "n1") and log_of(cluster, job, "n2"))
    assert "canhazgpu: requeue 1/20: " in shown(cluster, job)
    assert cluster.slurm.job(job)["Restarts"] == "1"


def test_a_running_job_that_is_requeued_and_held_frees_its_gpus(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    job = submit(cluster, people[0], script="sleep 60")
    poll_until(lambda: cluster.held("n1"))
    cluster.slurm.run(["scontrol", "requeuehold", str(job)], check=True)
    poll_until(lambda: cluster.held("n1") == {})
    cluster.slurm.run(["scontrol", "release", str(job)], check=True)
    start_now(cluster, job)
    poll_until(lambda: cluster.held("n1") != {})


def test_a_prolog_killed_while_it_waits_is_run_once_more(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    policy(cluster, "wait:4,requeue")
    job = submit(cluster, people[0])
    until_begun(cluster, job)
    kill_hook(cluster, "prolog", job, times=1)
    requeued(cluster, job)
    assert cluster.slurm.output(job, user=people[0]) == ""


def test_a_prolog_killed_again_drains_nothing(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    policy(cluster, "wait:25,requeue")
    job = submit(cluster, people[0], script="sleep 3")
    record = until_begun(cluster, job)
    kill_hook(cluster, "prolog", job, times=2)
    # Unchecked, as the hook's script says: a kill is no fault of the node's.
    assert_completed(cluster, job)
    poll_until(lambda: not record.exists())
    assert intruder.exit_status is None


@pytest.mark.release
def test_a_job_that_nobody_checked_sees_no_other_jobs_gpu(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, bob = people
    policy(cluster, "wait:25,requeue", assignment="canhazgpu")
    # Slurm's second GPU, which is the driver's first.
    with start_gpu_process(gpu_of_position(cluster, 1), 8000, user=bob):
        holder = submit(cluster, alice, script=f"{SHOW}sleep 60")
        first = cluster.uuids_of_positions("n1")[0]
        poll_until(lambda: cluster.slurm.output(holder, user=alice) == f"GPUS={first}\n")
        job = submit(cluster, alice)
        until_begun(cluster, job)
        # An agent's process that dies is followed by the hook itself, which is run once more.
        kill_hook(cluster, "prolog", job, times=2 if cluster.agents is None else 3)
        if cluster.agents is not None:
            # The task asks the agent before its code runs, and the policy applies.
            poll_until(lambda: "canhazgpu: requeue 1/20" in shown(cluster, job))
            assert "GPUS=" not in cluster.slurm.output(job, user=alice)
            return
        assert_completed(cluster, job)
    refused, gpus = cluster.slurm.output(job, user=alice).splitlines()
    assert refused.startswith("canhazgpu: this task sees no GPU: GPU 1 is another job's")
    assert gpus == "GPUS="


def test_only_one_task_of_an_array_is_counted(
    cluster: GpuCluster, people: tuple[str, str], intruder: Process
) -> None:
    alice, _ = people
    policy(cluster, "requeue")
    job = cluster.slurm.submit(SHOW, "--gres=gpu:1", "-wn1", "--array=1-3%1", user=alice)
    poll_until(lambda: "canhazgpu: requeue 1/20" in shown(cluster, job))
    show = ["squeue", "-h", "-r", "-o", "%i %k", "--jobs", str(job)]
    comments = dict(
        line.split(" ", 1) for line in cluster.slurm.run(show, check=True).stdout.splitlines()
    )
    counted = [task for task, comment in comments.items() if "canhazgpu: requeue" in comment]
    assert len(comments) == 3 and len(counted) == 1
