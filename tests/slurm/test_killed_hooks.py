"""Hooks that are killed at any stage, and numbers and names of jobs, on the real Slurm.

Whatever happens, no GPU is granted twice, none is leaked, and no node is drained.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster, poll_until

from demo_cluster import ClusterSpec
from fake_nvml import Process, start_gpu_process

pytestmark = pytest.mark.parts(3)

DIE = """
import json, os, sys

PLACE, SLURM = {place!r}, {slurm!r}


def arrange():
    # Other clusters run the same installation.
    if os.environ.get("SLURM_CONF") != SLURM:
        return
    try:
        with open(PLACE) as stream:
            hook, module, holder, name, when = json.load(stream)
    except OSError:
        return
    # A hook has its module in its command; a scan's child, and the command line, have not.
    with open("/proc/self/cmdline") as stream:
        if f"canhazgpu.{{hook}}.main" not in stream.read():
            return
    kind = getattr(__import__(module, fromlist=[holder]), holder)
    was = getattr(kind, name)

    def die(*given, **named):
        if when == "after":
            was(*given, **named)
        os.unlink(PLACE)
        os.kill(os.getpid(), 9)

    setattr(kind, name, die)


arrange()
"""
STAGES = {
    "prolog": [
        ("canhazgpu.ledger.local.jobs.job_records", "JobRecords", "begin"),
        ("canhazgpu.ledger.store.ledger", "RedisLedger", "read_nodes"),
        ("canhazgpu.ledger.local.book.book_transaction", "BookTransaction", "open_intent"),
        ("canhazgpu.ledger.store.ledger", "RedisLedger", "confirm"),
        ("canhazgpu.ledger.local.book.book_transaction", "BookTransaction", "apply"),
        ("canhazgpu.ledger.local.jobs.job_records", "JobRecords", "complete"),
        ("canhazgpu.ledger.local.fallback_ledger", "FallbackLedger", "record_note"),
    ],
    "epilog": [
        ("canhazgpu.ledger.local.jobs.job_records", "JobRecords", "end"),
        ("canhazgpu.ledger.local.book.book_transaction", "BookTransaction", "apply_and_journal"),
        ("canhazgpu.ledger.local.fallback_ledger", "FallbackLedger", "release"),
        ("canhazgpu.ledger.local.jobs.job_records", "JobRecords", "forget"),
        ("canhazgpu.ledger.store.ledger", "RedisLedger", "publish_scan"),
        ("canhazgpu.ledger.local.fallback_ledger", "FallbackLedger", "record_note"),
    ],
}
STAGE_LIST = [
    pytest.param(hook, stage, when, id=f"{hook} {when} {stage[1]}.{stage[2]}")
    for hook, stages in STAGES.items()
    for stage in stages
    for when in ("before", "after")
]


@pytest.fixture(scope="module")
def cluster(make_cluster: Any) -> GpuCluster:
    # The faults are those of a hook's own process; hooks/test_agent_faults.py has the agent's.
    spec = ClusterSpec(nodes=1, gpus_per_node=2)
    return make_cluster(spec, way="direct", slurm={"assignment": "slurm"})


@pytest.fixture(scope="module")
def fault(cluster: GpuCluster) -> Iterator[Path]:
    """A file that makes the next hook die where it says; that one removes it."""
    (site,) = (cluster.venv / "lib").glob("python*/site-packages")
    place = cluster.root / "fault.json"
    slurm = str(cluster.slurm.layout.slurm_conf)
    module = f"zz_fault_{os.getpid()}"
    (site / f"{module}.py").write_text(DIE.format(place=str(place), slurm=slurm))
    (site / f"{module}.pth").write_text(f"import {module}\n")
    yield place
    # The module stays: a Python of another cluster may have read the line that imports it.
    (site / f"{module}.pth").unlink()


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest, cluster: GpuCluster) -> Iterator[None]:
    """Of a test without the job beside it, which is to be the only one that others leave."""
    yield
    if "beside" in request.fixturenames:
        beside, mine = request.getfixturevalue("beside")
        poll_until(lambda: jobs_of(cluster) == [beside])
        poll_until(lambda: cluster.slurm.node_states() == {"n1": "mixed"})
        cluster.health_check("n1")
        assert cluster.held() == {mine: beside}
        assert records(cluster) == [f"{beside}.json"]
    else:
        assert_nothing_is_left(cluster)


@pytest.fixture(scope="module")
def beside(cluster: GpuCluster, people: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """A job beside those whose hooks are killed, and its GPU."""
    job = str(cluster.slurm.submit("sleep 3600", "--gres=gpu:1", user=people[1]))
    cluster.slurm.wait_job(int(job), states=("RUNNING",))
    poll_until(lambda: job in cluster.held().values())
    (mine,) = cluster.held()
    yield job, mine
    assert_nothing_is_left(cluster)


def jobs_of(cluster: GpuCluster) -> list[str]:
    return cluster.slurm.run(["squeue", "-h", "-o", "%A"]).stdout.split()


def records(cluster: GpuCluster) -> list[str]:
    return [path.name for path in (cluster.root / "run" / "n1" / "jobs").glob("*.json")]


def assert_nothing_is_left(cluster: GpuCluster) -> None:
    """Cancel all jobs; idle and nothing else: no node is drained."""
    for job in jobs_of(cluster):
        cluster.slurm.run(["scancel", job])
    cluster.slurm.wait_nodes_idle()
    cluster.health_check("n1")
    assert cluster.held() == {}
    assert records(cluster) == []


@pytest.mark.parametrize(("hook", "stage", "when"), STAGE_LIST)
def test_a_hook_killed_at_any_stage_drains_and_leaks_nothing(
    cluster: GpuCluster,
    people: tuple[str, str],
    beside: tuple[str, str],
    fault: Path,
    hook: str,
    stage: tuple[str, str, str],
    when: str,
) -> None:
    fault.write_text(json.dumps([hook, *stage, when]))
    job = cluster.slurm.submit("echo RAN", "--gres=gpu:1", user=people[0])
    record = cluster.slurm.wait_job(job)
    poll_until(lambda: cluster.slurm.node_states()["n1"] in ("mixed", "idle"))
    assert not fault.exists()
    assert record["JobState"] == "COMPLETED"
    # The other job keeps what it has, and nobody got it too.
    job_beside, mine = beside
    assert cluster.held()[mine] == job_beside


def test_a_number_that_slurm_gives_again_is_another_job(
    make_cluster: Any, people: tuple[str, str]
) -> None:
    """As after the controller lost its state: it counts jobs from 1, and the node knows a job 1.

    On a Slurm of its own, whose slurmd has seen no job: one that has reissues that job's
    credential, and runs no prolog.
    """
    alice, bob = people
    cluster = make_cluster(ClusterSpec(nodes=1, gpus_per_node=2), slurm={"assignment": "slurm"})
    # Job 1 of before, whose epilog never ran, had both GPUs.
    before = {
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_UID": "0",
        "SLURM_JOB_USER": bob,
        "SLURM_JOB_GPUS": "0,1",
        "SLURM_JOB_RESTART_COUNT": "0",
    }
    assert cluster.hook("prolog", "n1", **before).returncode == 0
    assert list(cluster.held().values()) == ["1", "1"]

    jobs = []
    for number in (1, 2):
        script = "echo $CUDA_VISIBLE_DEVICES; sleep 10"
        jobs.append(cluster.slurm.submit(script, "--gres=gpu:1", user=alice))
        poll_until(lambda: cluster.slurm.output(jobs[-1], user=alice))
        assert jobs[-1] == number
        assert len(cluster.held()) == number
    for job in jobs:
        assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"
    seen = [cluster.slurm.output(job, user=alice).split() for job in jobs]
    assert [len(one) for one in seen] == [1, 1]
    assert {one for (one,) in seen} == set(cluster.uuids_of_positions("n1"))
    assert [cluster.slurm.job(job)["Restarts"] for job in jobs] == ["0", "0"]
    cluster.slurm.wait_nodes_idle()
    cluster.health_check("n1")
    assert cluster.held() == {}


@pytest.fixture
def hostile(cluster: GpuCluster, people: tuple[str, str]) -> Iterator[Process]:
    """Bob's process, whose name is made for terminals, shells and parsers, on both GPUs."""
    name = "x\n\x1b[2J'\"$(id)=;\\"
    gpus = cluster.state.node("n1").gpus
    with start_gpu_process(gpus[0], 8000, user=people[1], name=name) as process:
        process.occupy(gpus[1], 8000)
        yield process


def test_a_hostile_name_reaches_slurm_as_one_harmless_line(
    cluster: GpuCluster, people: tuple[str, str], hostile: Process
) -> None:
    cluster.configure(slurm={"on_conflict": "drain"})
    try:
        job = cluster.slurm.submit("echo RAN", "--gres=gpu:1", user=people[0])
        poll_until(lambda: cluster.slurm.job(job).get("Reason") == "BeginTime")
        comment = cluster.slurm.job(job)["Comment"]
        shown = cluster.slurm.run(["scontrol", "show", "node", "n1"], check=True).stdout
    finally:
        cluster.configure(slurm={"on_conflict": "requeue"})
        cluster.slurm.run(["scancel", str(job)])
        cluster.slurm.run(["scontrol", "update", "nodename=n1", "state=resume"], check=True)
    assert f"used by PID {hostile.pid} (" in comment
    assert "\x1b" not in comment and "\x1b" not in shown
    (reason,) = [line for line in shown.splitlines() if "Reason=" in line]
    assert f"Reason=canhazgpu: job {job}: GPU" in reason
    log = [line for line in cluster.slurm.log("n1").splitlines() if f"job {job}:" in line]
    assert log and all(line.isprintable() for line in log)
