"""One release after the other on a node whose jobs go on: what each finds of the other's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster, poll_until
from clusters.two_step_jobs import end_job, start_job

from demo_cluster import ClusterSpec

LATER_FIELDS = ("epilogs_owed", "ended", "began_ticks")
"""What the first release's records did not have."""


@pytest.fixture(scope="module")
def cluster(make_cluster: Any) -> GpuCluster:
    return make_cluster(ClusterSpec(nodes=1, gpus_per_node=2, constrain_devices=True))


@pytest.fixture(autouse=True)
def _free_and_up_at_the_end(cluster: GpuCluster) -> Iterator[None]:
    yield
    for job in cluster.slurm.run(["squeue", "-h", "-o", "%A"]).stdout.split():
        cluster.slurm.run(["scancel", job])
    cluster.slurm.wait_nodes_idle()
    poll_until(lambda: cluster.held() == {})


def hooks(cluster: GpuCluster, environment: Path, *arguments: str) -> dict[str, Any]:
    """Run one of the commands of `canhazgpu hooks` of an environment, and return what it says."""
    done = subprocess.run(
        [
            *(environment / "bin/canhazgpu", "--config", cluster.config_file, "hooks"),
            *(arguments[0], "--slurm-dir", cluster.root / "etc/slurm", "--json", *arguments[1:]),
        ],
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "SLURM_CONF": str(cluster.slurm.layout.slurm_conf),
            "SLURMD_NODENAME": "n1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def to_be_installed(cluster: GpuCluster) -> list[str]:
    """Return what `hooks check` of this release says of scripts that are not its own."""
    findings = hooks(cluster, cluster.venv, "check")["findings"]
    return [
        one["found"]
        for one in findings
        if one["id"] == "hooks-installed" and one["severity"] != "ok"
    ]


def records(cluster: GpuCluster) -> Path:
    return cluster.root / "run" / "n1"


def rewrite(path: Path, **changes: Any) -> dict[str, Any]:
    """Change these keys of a file of JSON, None taking one out."""
    data = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: one for key, one in data.items() if one is not None}))
    return data


@pytest.fixture
def older(cluster: GpuCluster) -> Iterator[Path]:
    """The hooks of an older release's environment, which did not seal its scripts."""
    environment = cluster.root / "older"
    environment.symlink_to(cluster.venv)
    hooks(cluster, environment, "install")
    for path in (cluster.root / "etc/slurm").rglob("*.sh"):
        path.write_text(re.sub(r"(?m)^# canhazgpu .* sha256 .*\n", "", path.read_text()))
    (cluster.root / "etc/slurm/canhazgpu/health_check.sh").unlink()
    yield environment
    environment.unlink(missing_ok=True)
    hooks(cluster, cluster.venv, "install")


def test_a_job_goes_on_while_its_node_comes_to_the_next_release(
    cluster: GpuCluster, older: Path, people: tuple[str, str]
) -> None:
    job, signal = start_job(cluster, people[0])
    [gpu] = cluster.held()
    # As the first release left it: a record of few words, and no book.
    rewrite(records(cluster) / "jobs" / f"{job}.json", **dict.fromkeys(LATER_FIELDS))
    for name in ("book.json", "journal", "not-drained"):
        (records(cluster) / name).unlink(missing_ok=True)
    shutil.rmtree(cluster.root / "lib")
    before = to_be_installed(cluster)

    hooks(cluster, cluster.venv, "install")
    older.unlink()
    checked = cluster.health_check("n1")

    assert len(before) == 4
    assert sum("of a release before the one that seals" in one for one in before) == 3
    assert to_be_installed(cluster) == []
    assert checked.returncode == 0, checked.stderr
    assert cluster.held() == {gpu: str(job)}
    assert end_job(cluster, job, signal, people[0]) == [gpu, gpu, gpu]
    assert list((records(cluster) / "jobs").glob(f"{job}.*")) == []


def test_back_to_the_older_release_while_a_job_runs(
    cluster: GpuCluster, older: Path, people: tuple[str, str]
) -> None:
    hooks(cluster, cluster.venv, "install")
    job, signal = start_job(cluster, people[0])
    [gpu] = cluster.held()

    hooks(cluster, older, "install")
    lines = end_job(cluster, job, signal, people[0])

    assert lines == [gpu, gpu, gpu]


def newer_record(cluster: GpuCluster, job: int) -> str:
    rewrite(records(cluster) / "jobs" / f"{job}.json", format=2, owner={"of": "another kind"})
    return f"{job}.json cannot be read (format 2, of another release)"


def newer_journal(cluster: GpuCluster, _job: int) -> str:
    text = json.dumps({"format": 2, "node": "n1", "token": "t", "after": 0}).encode()
    (records(cluster) / "journal").write_bytes(b"%08x %s\n" % (zlib.crc32(text), text))
    return "journal is no journal of this node and release"


@pytest.mark.parametrize("write", [newer_record, newer_journal])
def test_what_only_a_newer_release_can_read_is_told_and_drains_no_node(
    cluster: GpuCluster, people: tuple[str, str], write: Any
) -> None:
    job, signal = start_job(cluster, people[0])
    [gpu] = cluster.held()
    words = write(cluster, job)

    checked = cluster.health_check("n1")
    other, other_signal = start_job(cluster, people[1])
    held = cluster.held()

    assert checked.returncode == 0, checked.stderr
    assert held.pop(gpu) == str(job)
    assert list(held.values()) == [str(other)]
    assert end_job(cluster, job, signal, people[0]) == [gpu, gpu, gpu]
    end_job(cluster, other, other_signal, people[1])
    assert words in cluster.slurm.log("n1")


def test_a_book_of_a_newer_release_is_not_remade_and_drains_no_node(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    job, signal = start_job(cluster, people[0])
    [gpu] = cluster.held()
    saved = records(cluster) / "book.json"
    content = saved.read_text()
    rewrite(saved, format=2, held=["another kind"])
    newer = saved.read_text()

    other = cluster.slurm.submit("true", "--gres=gpu:1", user=people[1])
    poll_until(lambda: "form 2, of a later release" in cluster.slurm.job(other).get("Comment", ""))

    assert cluster.health_check("n1").returncode == 0
    assert saved.read_text() == newer
    assert cluster.held() == {gpu: str(job)}
    cluster.slurm.run(["scancel", str(other)])
    saved.write_text(content)
    assert end_job(cluster, job, signal, people[0]) == [gpu, gpu, gpu]
