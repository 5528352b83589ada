"""What goes wrong around a job: hooks run twice, late or not at all, and a store that is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster, poll_until
from servers.private_redis import PrivateRedis, any_binary

from demo_cluster import ClusterSpec


@pytest.fixture(scope="module")
def cluster(make_cluster: Any) -> GpuCluster:
    return make_cluster(ClusterSpec(nodes=1, gpus_per_node=4), slurm={"assignment": "slurm"})


@pytest.fixture(autouse=True)
def _up_at_the_end(cluster: GpuCluster) -> Iterator[None]:
    yield
    for job in cluster.slurm.run(["squeue", "-h", "-o", "%A"]).stdout.split():
        cluster.slurm.run(["scancel", job])
    cluster.slurm.wait_nodes_idle()


def job_variables(job_id: int, attempt: int = 0, gpus: str = "0,1") -> dict[str, str]:
    return {
        "SLURM_JOB_ID": str(job_id),
        "SLURM_JOB_UID": "0",
        "SLURM_JOB_USER": "root",
        "SLURM_JOB_GPUS": gpus,
        "SLURM_JOB_RESTART_COUNT": str(attempt),
    }


def test_an_epilog_without_a_prolog_does_no_harm(cluster: GpuCluster) -> None:
    cluster.hook("prolog", "n1", **job_variables(9001))
    done = cluster.hook("epilog", "n1", **job_variables(9002))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert set(cluster.held().values()) == {"9001"}
    cluster.hook("epilog", "n1", **job_variables(9001))
    assert cluster.held() == {}


def test_prolog_and_epilog_may_both_run_twice(cluster: GpuCluster) -> None:
    for _ in range(2):
        assert cluster.hook("prolog", "n1", **job_variables(9003)).returncode == 0
        assert sorted(cluster.held()) == sorted(cluster.uuids_of_positions("n1")[:2])
    for _ in range(2):
        assert cluster.hook("epilog", "n1", **job_variables(9003)).returncode == 0
        assert cluster.held() == {}


def test_the_first_attempts_late_epilog_on_the_same_node_frees_nothing(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    # A job that Slurm knows to be running, so that the epilog is not the last.
    job = cluster.slurm.submit("sleep 60", user=people[0])
    cluster.slurm.wait_job(job, states=("RUNNING",))
    cluster.hook("prolog", "n1", **job_variables(job, attempt=0))
    cluster.hook("prolog", "n1", **job_variables(job, attempt=1))
    # An epilog of a requeued job carries the next attempt's number already.
    cluster.hook("epilog", "n1", **job_variables(job, attempt=1))
    assert set(cluster.held().values()) == {str(job)}
    cluster.hook("epilog", "n1", **job_variables(job, attempt=1))
    assert cluster.held() == {}


def test_a_node_that_lost_its_records_still_releases(cluster: GpuCluster) -> None:
    cluster.hook("prolog", "n1", **job_variables(9005))
    record = cluster.root / "run" / "n1" / "jobs" / "9005.json"
    record.unlink()
    cluster.hook("epilog", "n1", **job_variables(9005))
    assert cluster.held() == {}


def test_a_job_whose_variables_make_no_sense_changes_nothing(cluster: GpuCluster) -> None:
    for name, value in (
        ("SLURM_JOB_ID", "12; rm"),
        ("SLURM_JOB_GPUS", "0,banana"),
        ("SLURM_JOB_UID", "-1"),
        ("SLURM_JOB_RESTART_COUNT", "first"),
    ):
        done = cluster.hook("prolog", "n1", **{**job_variables(9006), name: value})
        assert done.returncode == 2
        assert name in done.stderr and value in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert cluster.held() == {}


def test_variables_that_slurmd_says_in_another_way_drain_no_node(cluster: GpuCluster) -> None:
    for name in ("prolog", "epilog"):
        variables = {**job_variables(9011), "SLURM_JOB_GPUS": "gpu:GPU-1"}
        done = cluster.hook(name, "n1", **variables, SLURM_SCRIPT_CONTEXT=f"{name}_slurmd")
        assert done.returncode == 0
    log = [line for line in cluster.slurm.log("n1").splitlines() if "'gpu:GPU-1'" in line]
    assert len(log) == 2 and "no GPU is checked, reserved or released" in log[0]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param("refused", id="a store that refuses"),
        pytest.param("silent", id="a store that never answers"),
        pytest.param("config", id="a configuration that cannot be read"),
    ],
)
def test_a_job_is_requeued_and_the_node_stays_up(
    cluster: GpuCluster, people: tuple[str, str], broken: str
) -> None:
    alice, _ = people
    with PrivateRedis(binary=any_binary()) as server:
        # That jobs start all the same is another policy, with tests of its own.
        if broken == "refused":
            cluster.configure(store={"url": "redis://127.0.0.1:1/0", "on_failure": "fail"})
            advice = "start it, or correct store.url"
        elif broken == "silent":
            server.pause()
            cluster.configure(store={"url": server.url, "timeout_s": 1.0, "on_failure": "fail"})
            advice = "see whether it answers"
        else:
            cluster.config_file.write_text("[store]\nurll = 'embedded'\n")
            advice = "did you mean store.url?"
        try:
            began = time.monotonic()
            job = cluster.slurm.submit("echo STARTED", "--gres=gpu:1", user=alice)
            poll_until(lambda: cluster.slurm.job(job).get("Reason") == "BeginTime")
            took_s = time.monotonic() - began
        finally:
            server.resume()
            cluster.configure(store={"url": "embedded", "timeout_s": 3.0, "on_failure": "local"})

    assert took_s < 45
    log = [line for line in cluster.slurm.log("n1").splitlines() if f"job {job}:" in line]
    assert any(advice in line and line.endswith("job requeued") for line in log)
    assert cluster.slurm.node_states()["n1"].lower().startswith("idle")
    assert cluster.slurm.output(job, user=alice) == ""
    assert cluster.held() == {}


@pytest.mark.parametrize("policy", ["local", "fail"])
def test_a_release_that_found_no_store_is_made_good_by_the_next_hook(
    cluster: GpuCluster, people: tuple[str, str], policy: str
) -> None:
    alice, _ = people
    cluster.hook("prolog", "n1", **job_variables(9007, gpus="0"))
    cluster.configure(store={"url": "redis://127.0.0.1:1/0", "on_failure": policy})
    try:
        assert cluster.hook("epilog", "n1", **job_variables(9007, gpus="0")).returncode == 0
    finally:
        cluster.configure(store={"url": "embedded", "on_failure": "local", "retry_after_s": 0.1})
    # Root's command tells the store what the node's journal has.
    assert set(cluster.held().values()) == (set() if policy == "local" else {"9007"})

    done = cluster.slurm.run(["srun", "--gres=gpu:1", "echo", "RAN"], user=alice, check=True)
    assert done.stdout == "RAN\n"
    poll_until(lambda: cluster.held() == {})


def test_what_an_earlier_boot_reserved_is_reaped(cluster: GpuCluster) -> None:
    leave = (
        "import sys\n"
        "from canhazgpu.config.schema import StoreConfig\n"
        "from canhazgpu.gpu.scan import Scan\n"
        "from canhazgpu.ledger.port import Observation\n"
        "from canhazgpu.ledger.store.connect import Role\n"
        "from canhazgpu.ledger.store.ledger import RedisLedger\n"
        "from canhazgpu.ledger.values import Claim\n"
        "from canhazgpu.gpu.scan import GpuReading\n"
        "ledger = RedisLedger(StoreConfig(url='embedded', embedded_dir=sys.argv[1]), Role.WRITE)\n"
        "claim = Claim('job:demo:9008:0', 'slurm', 'root', job_id='9008', boot_id='before')\n"
        "gpu = GpuReading(0, sys.argv[2], 0, 'GPU', 1, 2)\n"
        "scan = Scan('n1', 0.0, 0.0, (gpu,))\n"
        "print(ledger.reserve_given(claim, [sys.argv[2]], Observation(scan, 0.0)))\n"
    )
    gpu = cluster.uuids_of_positions("n1")[0]
    cluster.run_python(leave, gpu)
    assert cluster.held() == {gpu: "9008"}

    cluster.hook("prolog", "n1", **job_variables(9009, gpus="0"))
    assert cluster.held() == {gpu: "9009"}
    cluster.hook("epilog", "n1", **job_variables(9009, gpus="0"))


def test_commands_that_hang_drain_nothing(cluster: GpuCluster) -> None:
    slow = cluster.root / "slow"
    slow.mkdir()
    for name in ("squeue", "scontrol", "scancel"):
        (slow / name).write_text("#!/bin/sh\nexec /bin/sleep 100\n")
        (slow / name).chmod(0o755)
    cluster.configure(
        store={"url": "redis://127.0.0.1:1/0", "on_failure": "fail"},
        slurm={"bin_dir": str(slow), "command_timeout_s": 1.0},
    )
    try:
        began = time.monotonic()
        done = cluster.hook("prolog", "n1", **job_variables(9010))
        took_s = time.monotonic() - began
        cluster.hook("epilog", "n1", **job_variables(9010))
    finally:
        cluster.configure(
            store={"url": "embedded", "on_failure": "local"},
            slurm={"bin_dir": "", "command_timeout_s": 10.0},
        )
    assert done.returncode == 0
    assert took_s < 20
    log = [line for line in cluster.slurm.log("n1").splitlines() if "job 9010:" in line]
    assert "runs unchecked" in log[0] and "squeue gave no answer in 1 s" in log[0]


def test_a_gpu_of_a_job_that_slurm_forgot_is_reaped_on_a_conflict(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, _ = people
    gone = cluster.slurm.submit("true", "--gres=gpu:1", user=alice)
    cluster.slurm.wait_job(gone)
    cluster.slurm.wait_nodes_idle()
    # As if its epilog had never run.
    cluster.hook("prolog", "n1", **job_variables(gone, gpus="0"))
    assert set(cluster.held().values()) == {str(gone)}

    done = cluster.slurm.run(["srun", "--gres=gpu:1", "echo", "RAN"], user=alice, check=True)
    assert done.stdout == "RAN\n"
    poll_until(lambda: cluster.held() == {})


def test_an_owed_epilog_that_was_lost_keeps_no_gpu(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, _ = people
    job = cluster.slurm.submit("true", "--gres=gpu:1", user=alice)
    cluster.slurm.wait_job(job)
    cluster.slurm.wait_nodes_idle()
    cluster.hook("prolog", "n1", **job_variables(job, attempt=0, gpus="0"))
    cluster.hook("prolog", "n1", **job_variables(job, attempt=1, gpus="0"))
    assert set(cluster.held().values()) == {str(job)}
    # One epilog only, and Slurm says that the job is over.
    cluster.hook("epilog", "n1", **job_variables(job, attempt=1, gpus="0"))
    assert cluster.held() == {}
