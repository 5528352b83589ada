"""The job of a process, where its group has the job's id and where it has an SLUID.

cgroup v2 does not run here: groups and slurmstepd are files as a real 26.05 has them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from canhazgpu.gpu.process_job import is_unidentified
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.schedulers.slurm.attribution.attribution import JobAttribution
from canhazgpu.schedulers.slurm.attribution.job_group import SlurmdGroups

SCOPE = "/system.slice/slurmstepd.scope"
SLUID = "s5K1KKYAYG5D00"
RECORDED = f"0::{SCOPE}/{SLUID}/step_0/user/task_0\n"


class Node:
    """A node's records, its /proc, and a mounted cgroup v2."""

    def __init__(self, directory: Path) -> None:
        self.records = JobRecords(directory / "state")
        self.proc = directory / "proc"
        self.mount = directory / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "self/mountinfo").write_text(
            f"30 23 0:26 / {self.mount} rw - cgroup2 cgroup2 rw\n"
        )

    def job(self, text: str = RECORDED) -> str | None:
        return JobAttribution(lambda: SlurmdGroups(v2=(SCOPE,)), self.records, self.proc)(text)

    def begin(self, job_id: str, sluid: str = "", attempt: int = 0) -> None:
        self.records.begin(JobOwner("c", job_id, attempt), "ann", None, (0,), sluid)

    def add_step(self, pid: int, title: str, *, step: str = "step_0/slurm") -> None:
        group = self.mount / SCOPE[1:] / SLUID / step
        group.mkdir(parents=True, exist_ok=True)
        with (group / "cgroup.procs").open("a") as stream:
            stream.write(f"{pid}\n")
        (self.proc / str(pid)).mkdir()
        (self.proc / str(pid) / "cmdline").write_bytes(title.encode() + b"\0")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_job_id_in_the_path(node: Node) -> None:
    assert node.job(f"0::{SCOPE}/job_12/step_0/user/task_0\n") == "slurm:12"
    assert node.job("0::/user.slice/user-1000.slice\n") is None
    assert node.job("") is None


def test_an_sluid_that_the_prolog_recorded(node: Node) -> None:
    node.begin("12", SLUID)
    node.begin("13", "s5K1KKYAYG5D01")
    node.begin("14")
    assert node.job() == "slurm:12"


def test_an_sluid_that_no_prolog_recorded_is_known_by_its_slurmstepd(node: Node) -> None:
    # Given a job without GPUs, whose prolog records nothing
    node.add_step(70, "slurmstepd: [77.batch]")
    node.add_step(71, "slurmstepd: [77.0]", step="step_1/slurm")
    assert node.job() == "slurm:77"


@pytest.mark.parametrize(
    ("title", "step"),
    [
        ("sleep", "step_0/slurm"),
        ("slurmstepd: [77.batch]", "step_0/user/task_0"),  # a user's own process
        ("/usr/sbin/slurmstepd infinity", "step_0/slurm"),
        ("x slurmstepd: [77.batch]", "step_0/slurm"),
    ],
)
def test_an_sluid_that_nothing_identifies_is_a_job_all_the_same(
    node: Node, title: str, step: str
) -> None:
    node.begin("12", "s5K1KKYAYG5D01")
    node.add_step(70, title, step=step)
    found = node.job()
    assert found == f"slurm:?{SLUID}"
    assert is_unidentified(found)


def test_slurmstepds_that_disagree_identify_nothing(node: Node) -> None:
    node.add_step(70, "slurmstepd: [77.batch]")
    node.add_step(71, "slurmstepd: [78.batch]", step="step_1/slurm")
    assert is_unidentified(node.job())


def test_records_that_cannot_be_read(node: Node, tmp_path: Path) -> None:
    (tmp_path / "state/jobs").mkdir(parents=True)
    (tmp_path / "state/jobs/12.json").write_text(f'{{"run_id": "{SLUID}"}}')
    assert is_unidentified(node.job())
