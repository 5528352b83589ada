"""Slurm's own health check: nodes that were restarted, jobs that went without a word."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from clusters.silent_scripts import silent
from polling import poll_until
from servers.private_redis import PrivateRedis, any_binary

from canhazgpu.schedulers.slurm.conf.node_conf import read_node_conf
from canhazgpu.schedulers.slurm.hook.slurmd_gpus_record import read_answer
from demo_cluster import ClusterSpec
from demo_cluster.host.processes import process_environment
from demo_cluster.leftovers import find_leftovers

pytestmark = pytest.mark.parts(2)
INTERVAL_S = 4
PARTITIONS = """\
NodeSet=second Nodes=n2
PartitionName=every Nodes=ALL
PartitionName=DEFAULT Nodes=n[1-2]
PartitionName=both
PartitionName=set Nodes=second
PartitionName=none Nodes=""
PartitionName=hidden Nodes=n1 Hidden=YES
"""


@pytest.fixture(scope="module")
def store() -> Iterator[PrivateRedis]:
    with PrivateRedis(binary=any_binary(), persist=True) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(make_cluster: Any, store: PrivateRedis) -> GpuCluster:
    spec = ClusterSpec(
        nodes=2,
        gpus_per_node=2,
        health_check_interval_s=INTERVAL_S,
        slurm_conf_extra=PARTITIONS,
    )
    return make_cluster(spec, store={"url": store.url, "timeout_s": 2.0})


@pytest.fixture(autouse=True)
def _free_and_up_at_the_end(cluster: GpuCluster) -> Iterator[None]:
    yield
    cluster.cancel_jobs()
    cluster.slurm.wait_nodes_idle()
    poll_until(lambda: cluster.held("n1") == {} and cluster.held("n2") == {})


def lose_records(cluster: GpuCluster, node: str) -> None:
    """Remove all that a node has of its boot, as a reboot does: what marks the boot, too."""
    if cluster.agents is not None:
        cluster.slurm.kill_agent(node)
    for directory in (cluster.root / "run" / node, cluster.root / "lib"):
        # What the agent's children were about to write may still come.
        while directory.exists():
            shutil.rmtree(directory, ignore_errors=True)
    if cluster.agents is not None:
        cluster.slurm.start_agents(node)


def kill_all_of(cluster: GpuCluster, job: int) -> None:
    """End a job's slurmstepds and processes as a loss of power would."""
    for process in find_leftovers(cluster.slurm.layout):
        in_job = process_environment(process.pid).get("SLURM_JOB_ID") == str(job)
        if in_job or title_of(process.pid).startswith(f"slurmstepd: [{job}.".encode()):
            process.signal(signal.SIGKILL)


def title_of(pid: int) -> bytes:
    """Return a process's command line; nothing of one that has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_every_node_publishes_the_partitions_that_slurm_says(cluster: GpuCluster) -> None:
    poll_until(lambda: set(cluster.status("n1")) == {"n1", "n2"})
    shown = json.loads(cluster.canhazgpu("status", "--json", node="n1").stdout)["nodes"]
    for one in shown:
        node = cluster.slurm.run(["scontrol", "show", "node", one["node"]], check=True)
        (line,) = re.findall(r"Partitions=(\S+)", node.stdout)
        assert sorted(one["partitions"]) == sorted(line.split(","))
        assert one["partitions_at"] is not None
    chosen = cluster.canhazgpu("status", "-s", "--partition", "set,none", node="n1", check=False)
    assert "no node has published a partition 'none'" in chosen.stderr
    chosen = cluster.canhazgpu("status", "-s", "--partition", "set", node="n1")
    assert chosen.stdout.startswith("n2  2 GPUs")


def test_every_node_publishes_its_gpus_without_any_job(cluster: GpuCluster) -> None:
    poll_until(lambda: set(cluster.status("n1")) == {"n1", "n2"})
    first = json.loads(cluster.canhazgpu("status", "--json", node="n1").stdout)
    scanned = {one["node"]: one["scanned_at"] for one in first["nodes"]}

    def newer() -> bool:
        shown = json.loads(cluster.canhazgpu("status", "--json", node="n1").stdout)
        return all(one["scanned_at"] > scanned[one["node"]] for one in shown["nodes"])

    poll_until(newer)


def test_every_node_keeps_how_its_slurmd_reads_the_gpus(cluster: GpuCluster) -> None:
    for node in ("n1", "n2"):
        # As jobs see it: the checks that the tests run by hand are not below a slurmd.
        answer = poll_until(partial(read_answer, cluster.root / "run" / node))
        conf = next(Path(path) for path in answer.conf if path.endswith("/slurm.conf"))
        assert (answer.fault, bool(answer.slurmd)) == ("", True)
        assert answer.devices == read_node_conf(conf, node, node).gpu_devices
        assert len(answer.devices) == 2


def test_a_running_jobs_reservation_outlives_many_checks(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, _ = people
    job = cluster.slurm.submit(f"sleep {4 * INTERVAL_S}", "--gres=gpu:2", "-wn1", user=alice)
    poll_until(lambda: cluster.held("n1"))
    while cluster.slurm.job(job)["JobState"] == "RUNNING":
        held = cluster.held("n1")
        if cluster.slurm.job(job)["JobState"] == "RUNNING":
            assert set(held.values()) == {str(job)} and len(held) == 2
        time.sleep(0.2)


@pytest.mark.release
def test_an_allocation_without_any_step_is_not_taken_for_gone(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, _ = people
    cluster.slurm.run(["salloc", "--no-shell", "--gres=gpu:1", "-wn1"], user=alice, check=True)
    (job,) = set(poll_until(lambda: cluster.held("n1")).values())
    for _ in range(3):
        assert cluster.health_check("n1").returncode == 0
    assert set(cluster.held("n1").values()) == {job}
    cluster.slurm.run(["scancel", job], user=alice)


@pytest.mark.release
def test_a_job_whose_epilog_never_ran_is_reaped(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, _ = people
    with silent(cluster.hook_path("epilog")):  # as if it were lost
        job = cluster.slurm.submit("sleep 1", "--gres=gpu:1", "-wn1", user=alice)
        cluster.slurm.wait_job(job)
        poll_until(lambda: cluster.held("n1") == {})
    poll_until(lambda: not list((cluster.root / "run" / "n1" / "jobs").glob("*.json")))


def test_what_a_flushed_store_lost_comes_back_while_the_jobs_run(
    cluster: GpuCluster, people: tuple[str, str], store: PrivateRedis
) -> None:
    alice, _ = people
    jobs = [
        cluster.slurm.submit("sleep 60", "--gres=gpu:1", f"-w{node}", user=alice)
        for node in ("n1", "n1", "n2")
    ]
    assert len(jobs) == 3
    poll_until(lambda: (len(cluster.held("n1")), len(cluster.held("n2"))) == (2, 1))
    before = {node: cluster.held(node) for node in ("n1", "n2")}
    with store.client() as direct:
        direct.flushall()
    poll_until(lambda: {node: cluster.held(node) for node in ("n1", "n2")} == before)


def test_a_node_that_lost_slurmd_and_all_its_jobs(
    cluster: GpuCluster, people: tuple[str, str], store: PrivateRedis
) -> None:
    """As after a reboot: no slurmstepd, no records, claims of another boot."""
    alice, _ = people
    job = cluster.slurm.submit("sleep 600", "--gres=gpu:2", "-wn2", "--no-requeue", user=alice)
    poll_until(lambda: len(cluster.held("n2")) == 2)
    cluster.slurm.kill_slurmd("n2")
    kill_all_of(cluster, job)
    lose_records(cluster, "n2")
    with store.client() as direct:
        key = "canhazgpu:{n2}:reservations"
        for gpu, text in direct.hgetall(key).items():
            direct.hset(key, gpu, json.dumps({**json.loads(text), "boot_id": "before"}))
    cluster.slurm.restart_slurmd("n2")
    poll_until(lambda: cluster.held("n2") == {})


@pytest.mark.release
def test_what_the_node_alone_granted_before_a_reboot_is_told(
    cluster: GpuCluster, people: tuple[str, str], store: PrivateRedis
) -> None:
    alice, _ = people
    store.kill()
    job = cluster.slurm.submit("sleep 600", "--gres=gpu:1", "-wn2", "--no-requeue", user=alice)
    poll_until((cluster.root / "run" / "n2" / "jobs" / f"{job}.env").exists)
    cluster.slurm.wait_job(job, states=("RUNNING",))
    cluster.slurm.kill_slurmd("n2")
    kill_all_of(cluster, job)
    lose_records(cluster, "n2")
    store.start()
    # Its own check, when it starts, finds Slurm still sure that the job is there.
    cluster.slurm.restart_slurmd("n2")

    def told() -> str:
        return cluster.canhazgpu("explain", str(job), node="n2", user=alice, check=False).stdout

    text = poll_until(lambda: said if "health check: " in (said := told()) else "")
    assert " with gpu:1(IDX:" in text and "no grant of it reached the store" in text
    assert text.startswith(f"job {job} of {alice}\nnode n2\n")
    cluster.slurm.run(["scancel", str(job)])


def test_slurmd_restarted_under_a_job_changes_nothing(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, _ = people
    job = cluster.slurm.submit("sleep 600", "--gres=gpu:1", "-wn1", user=alice)
    held = poll_until(lambda: cluster.held("n1"))
    cluster.slurm.restart_slurmd("n1")
    for _ in range(2):
        assert cluster.health_check("n1").returncode == 0
    assert cluster.held("n1") == held
    assert set(held.values()) == {str(job)}


def test_an_administrator_releases_a_job_on_all_its_nodes(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, bob = people
    job = cluster.slurm.submit("sleep 600", "--gres=gpu:1", "-N2", "--no-requeue", user=alice)
    other = cluster.slurm.submit("sleep 600", "--gres=gpu:1", "-wn2", user=bob)
    for node, jobs in (("n1", [str(job)]), ("n2", sorted([str(job), str(other)]))):
        poll_until(lambda: sorted(cluster.held(node).values()) == jobs)  # noqa: B023
    words = ("admin", "release", "--job", str(job), "--reason", "it hangs", "--json")
    done = json.loads(cluster.canhazgpu(*words, node="n1").stdout)
    released = {one["node"]: [row["user"] for row in one["released"]] for one in done["nodes"]}
    assert released == {"n1": [alice], "n2": [alice]}
    assert "it hangs" in cluster.canhazgpu("explain", str(job), node="n2", user=alice).stdout
    # Slurm runs it still.
    poll_until(lambda: cluster.held("n1") == {gpu: str(job) for gpu in cluster.held("n1")} != {})
    assert str(other) in cluster.held("n2").values()


@pytest.mark.release
def test_our_own_drain_is_undone_and_an_administrators_is_not(cluster: GpuCluster) -> None:
    def drain(reason: str) -> None:
        cluster.slurm.run(
            ["scontrol", "update", "nodename=n1", "state=drain", f"reason={reason}"], check=True
        )
        # A node that canhazgpu drains remembers that it did.
        (cluster.root / "run" / "n1" / "not-drained").unlink(missing_ok=True)

    drain("canhazgpu: GPU 0 is in use by mallory")
    poll_until(lambda: cluster.slurm.node_states()["n1"] == "idle")
    drain("replace the fan")
    for _ in range(2):
        assert cluster.health_check("n1").returncode == 0
    assert "drain" in cluster.slurm.node_states()["n1"]
    cluster.slurm.run(["scontrol", "update", "nodename=n1", "state=resume"], check=True)
