"""Jobs on a real Slurm, GPUs picked by canhazgpu: reserved, exported and freed without a word."""

from __future__ import annotations

import json
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from polling import poll_until

from demo_cluster import ClusterSpec

pytestmark = [pytest.mark.parts(2), pytest.mark.release]


@pytest.fixture(scope="module", params=["direct", "agent"])
def cluster(make_cluster: Any, request: pytest.FixtureRequest) -> GpuCluster:
    return make_cluster(ClusterSpec(nodes=2, gpus_per_node=4), way=request.param)


@pytest.fixture(autouse=True)
def _everything_free_at_the_end(cluster: GpuCluster):
    yield
    cluster.slurm.wait_nodes_idle()
    cluster.settle()
    assert cluster.held("n1") == {}
    assert cluster.held("n2") == {}


def exported(output: str) -> list[str]:
    return [line.removeprefix("GPUS=") for line in output.splitlines() if line.startswith("GPUS=")]


def test_a_job_holds_what_it_sees_and_status_shows_it(cluster: GpuCluster, people: Any) -> None:
    alice, bob = people
    script = (
        f"echo GPUS=$CUDA_VISIBLE_DEVICES\n{cluster.gpu_process()} --memory-mb 2000 --seconds 30"
    )
    job = cluster.slurm.submit(script, "--gres=gpu:2", "-wn1", "--job-name=train", user=alice)
    poll_until(lambda: any(gpu["processes"] for gpu in cluster.status()["n1"].values()))
    # Where Slurm tells a prolog no name of the job, the health check asks for it.
    assert cluster.health_check("n1").returncode == 0

    shown = cluster.status("n1", user=bob)["n1"]
    text = cluster.canhazgpu("status", node="n1", user=bob).stdout

    mine = {uuid: gpu for uuid, gpu in shown.items() if gpu["state"] == "reserved"}
    assert set(mine) == set(exported(cluster.slurm.output(job, user=alice))[0].split(","))
    assert len(mine) == 2
    for gpu in mine.values():
        assert gpu["reservation"]["type"] == "slurm"
        assert gpu["reservation"]["user"] == alice
        assert gpu["reservation"]["job_id"] == str(job)
        assert gpu["reservation"]["job_name"] == "train"
        assert gpu["validation"] == "2045MB, 1 processes"
        assert [process["user"] for process in gpu["processes"]] == [alice]
    assert [gpu["state"] for gpu in shown.values()].count("available") == 2
    assert f"job {job}" in text and "slurm" in text and alice in text
    cluster.slurm.run(["scancel", str(job)], user=alice)
    assert cluster.slurm.wait_job(job)["JobState"] == "CANCELLED"


def test_an_array_never_shares_a_gpu(cluster: GpuCluster, people: Any) -> None:
    alice, _ = people
    script = """
    echo "SPAN $(date +%s%N) $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"
    sleep 0.5
    echo "END $(date +%s%N)"
    """
    first = cluster.slurm.submit(
        script, "--gres=gpu:1", "--array=1-20", "--output=array-%a.out", user=alice
    )
    poll_until(lambda: not cluster.slurm.run(["squeue", "-h"]).stdout.strip())

    spans = []
    for path in cluster.slurm.home(alice).glob("array-*.out"):
        words = path.read_text().split()
        spans.append((words[3], int(words[1]), int(words[5])))
        assert words[3].startswith("GPU-") and "," not in words[3]
    assert len(spans) == 20, first
    assert len({gpu for gpu, _, _ in spans}) == 8
    for gpu, began, ended in spans:
        others = [span for span in spans if span != (gpu, began, ended) and span[0] == gpu]
        assert all(ended < start or end < began for _, start, end in others)


def test_a_two_node_job_holds_gpus_on_both(cluster: GpuCluster, people: Any) -> None:
    alice, _ = people
    script = "srun sh -c 'echo GPUS=$SLURMD_NODENAME:$CUDA_VISIBLE_DEVICES'; sleep 30"
    job = cluster.slurm.submit(script, "-N2", "--gres=gpu:2", user=alice)
    lines = poll_until(
        lambda: (
            (found := exported(cluster.slurm.output(job, user=alice))) and len(found) == 2 and found
        )
    )

    seen = {node: set(gpus.split(",")) for node, gpus in (line.split(":") for line in lines)}
    assert seen == {"n1": set(cluster.held("n1")), "n2": set(cluster.held("n2"))}
    assert all(len(gpus) == 2 for gpus in seen.values())
    # One node's status shows the other from its published scan.
    assert set(cluster.status("n1")["n2"]) == {gpu.uuid for gpu in cluster.state.node("n2").gpus}
    cluster.slurm.run(["scancel", str(job)])
    cluster.slurm.wait_job(job)


def test_steps_that_split_a_job_see_their_own_gpus(cluster: GpuCluster, people: Any) -> None:
    alice, _ = people
    script = """
    echo GPUS=$CUDA_VISIBLE_DEVICES
    srun --exact -n1 --gres=gpu:1 sh -c 'echo GPUS=$CUDA_VISIBLE_DEVICES; sleep 2' &
    srun --exact -n1 --gres=gpu:1 sh -c 'echo GPUS=$CUDA_VISIBLE_DEVICES; sleep 2' &
    wait
    srun -n2 --gpus-per-task=1 sh -c 'echo GPUS=$CUDA_VISIBLE_DEVICES'
    srun -n1 --gres=none sh -c 'echo GPUS=none${CUDA_VISIBLE_DEVICES-}'
    """
    job = cluster.slurm.submit(script, "--gres=gpu:2", "-n2", "-N1", user=alice)
    assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"

    whole, *parts, none = exported(cluster.slurm.output(job, user=alice))
    gpus = set(whole.split(","))
    assert len(gpus) == 2 and all(gpu.startswith("GPU-") for gpu in gpus)
    assert set(parts[:2]) == gpus
    assert set(parts[2:]) == gpus
    assert none == "none"


def test_srun_and_salloc_without_a_batch_script(cluster: GpuCluster, people: Any) -> None:
    alice, _ = people
    show = ["sh", "-c", "echo GPUS=$CUDA_VISIBLE_DEVICES"]

    direct = cluster.slurm.run(["srun", "--gres=gpu:1", *show], user=alice, check=True)
    allocated = cluster.slurm.run(["salloc", "--gres=gpu:2", "srun", *show], user=alice, check=True)

    assert [len(line.split(",")) for line in exported(direct.stdout)] == [1]
    assert [len(line.split(",")) for line in exported(allocated.stdout)] == [2]
    assert "GPU-" in direct.stdout and "GPU-" in allocated.stdout


def test_a_job_without_gpus_contacts_no_store(cluster: GpuCluster, people: Any) -> None:
    alice, _ = people
    cluster.configure(store={"url": "redis://127.0.0.1:1/0"})
    try:
        began = len(cluster.slurm.log("n1"))
        done = cluster.slurm.run(["srun", "-wn1", "sh", "-c", "echo ran"], user=alice, check=True)
        assert done.stdout.strip() == "ran"
        assert "canhazgpu" not in cluster.slurm.log("n1")[began:]
    finally:
        cluster.configure(store={"url": "embedded"})


def test_scancel_while_pending_reserves_nothing(cluster: GpuCluster, people: Any) -> None:
    alice, _ = people
    job = cluster.slurm.submit("true", "--gres=gpu:1", "--begin=now+3600", user=alice)
    cluster.slurm.run(["scancel", str(job)], user=alice)
    assert cluster.slurm.wait_job(job)["JobState"] == "CANCELLED"
    assert cluster.held("n1") == {}


def test_scancel_in_the_prolog_frees_what_it_reserved(cluster: GpuCluster, people: Any) -> None:
    alice, _ = people
    node = cluster.state.node("n1")
    node.inject("nvmlInit", delay_ms=3000)
    try:
        job = cluster.slurm.submit("echo started", "--gres=gpu:1", "-wn1", user=alice)
        record = cluster.root / "run" / "n1" / "jobs" / f"{job}.json"
        poll_until(record.exists)
        cluster.slurm.run(["scancel", str(job)], user=alice)
        assert cluster.slurm.wait_job(job)["JobState"] == "CANCELLED"
    finally:
        node.clear_injections()
    poll_until(lambda: not record.exists())
    assert cluster.held("n1") == {}


def owners(cluster: GpuCluster, node: str) -> set[str]:
    gpus = cluster.status(node)[node].values()
    return {gpu["reservation"]["owner"] for gpu in gpus if gpu["reservation"]}


def start_again(cluster: GpuCluster, job: int, *elsewhere: str) -> None:
    """Let a requeued job run now rather than after Slurm's two minutes; `elsewhere` says where."""
    poll_until(lambda: cluster.slurm.job(job)["JobState"] == "PENDING")
    poll_until(lambda: cluster.slurm.job(job)["Reason"] == "BeginTime")
    # In the very second of the requeue slurmd refuses the job: its credential is revoked.
    start = ["scontrol", "update", f"job={job}", "StartTime=now+3", *elsewhere]
    cluster.slurm.run(start, check=True)
    cluster.slurm.wait_job(job, states=("RUNNING",))


def test_a_requeued_job_holds_gpus_as_its_second_attempt(cluster: GpuCluster, people: Any) -> None:
    alice, _ = people
    job = cluster.slurm.submit("sleep 60", "--gres=gpu:2", "-wn1", user=alice)
    poll_until(lambda: owners(cluster, "n1") == {f"job:demo:{job}:0"})

    cluster.slurm.run(["scontrol", "requeue", str(job)], check=True)
    poll_until(lambda: owners(cluster, "n1") == set())
    start_again(cluster, job)

    poll_until(lambda: owners(cluster, "n1") == {f"job:demo:{job}:1"})
    assert len(cluster.held("n1")) == 2
    cluster.slurm.run(["scancel", str(job)])
    cluster.slurm.wait_job(job)


def test_the_late_epilog_of_a_lost_node_frees_nothing_of_the_second_run(
    cluster: GpuCluster, people: Any
) -> None:
    alice, _ = people
    job = cluster.slurm.submit("sleep 300", "--gres=gpu:2", user=alice)
    lost = cluster.slurm.wait_job(job, states=("RUNNING",))["NodeList"]
    other = {"n1": "n2", "n2": "n1"}[lost]
    poll_until(lambda: owners(cluster, lost) == {f"job:demo:{job}:0"})
    try:
        cluster.slurm.kill_slurmd(lost)
        down = [f"node={lost}", "state=down", "reason=test"]
        cluster.slurm.run(["scontrol", "update", *down], check=True)
        # From 24.11 on Slurm takes the node for one that answers, and would start the job there.
        start_again(cluster, job, f"ExcNodeList={lost}")
        poll_until(lambda: owners(cluster, other) == {f"job:demo:{job}:1"})
        assert owners(cluster, lost) == {f"job:demo:{job}:0"}
    finally:
        cluster.slurm.restart_slurmd(lost)

    # The epilog of the first run comes only now, and with the second run's number.
    poll_until(lambda: owners(cluster, lost) == set())
    assert owners(cluster, other) == {f"job:demo:{job}:1"}
    assert cluster.slurm.job(job)["JobState"] == "RUNNING"
    cluster.slurm.run(["scancel", str(job)])
    cluster.slurm.wait_job(job)
    cluster.slurm.run(["scontrol", "update", f"node={lost}", "state=resume"])


@pytest.mark.xdist_group("time limit")
def test_a_time_limit_frees_the_gpus(cluster: GpuCluster, people: Any) -> None:
    alice, _ = people
    job = cluster.slurm.submit("sleep 300", "--gres=gpu:1", "--time=1", user=alice)
    cluster.slurm.wait_job(job, states=("RUNNING",))
    # A limit has whole minutes; the time at which it is over has not.
    cluster.slurm.run(["scontrol", "update", f"job={job}", "EndTime=now+1"], check=True)
    ended = cluster.slurm.wait_job(job, timeout_s=180)
    assert ended["JobState"] == "TIMEOUT", ended


def test_history_names_every_grant_and_release(cluster: GpuCluster, people: Any) -> None:
    alice, _ = people
    job = cluster.slurm.submit("true", "--gres=gpu:1", "-wn2", user=alice)
    cluster.slurm.wait_job(job)
    cluster.slurm.wait_nodes_idle()

    show = (
        "import json, sys\n"
        "from canhazgpu.config.schema import StoreConfig\n"
        "from canhazgpu.ledger.store.connect import Role\n"
        "from canhazgpu.ledger.store.ledger import RedisLedger\n"
        "store = StoreConfig(url='embedded', embedded_dir=sys.argv[1])\n"
        "events = RedisLedger(store, Role.READ).history('n2', 0)\n"
        "told = [[one.kind, one.gpu, one.claim and one.claim.job_id] for one in events]\n"
        "print(json.dumps(told))\n"
    )
    events = json.loads(cluster.run_python(show))

    # Beside what the hooks tell of themselves.
    mine = [one for one in events if one[0] in ("grant", "release") and one[2] == str(job)]
    assert [kind for kind, _, _ in mine] == ["grant", "release"]
    assert mine[0][1] == mine[1][1] != ""
