"""The jobs that Slurm has on a node, for a book that was lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from canhazgpu.config.schema import SlurmConfig
from canhazgpu.errors import SchedulerError
from canhazgpu.node.job_lock import is_in_hook, job_lock
from canhazgpu.schedulers.slurm.control.node_jobs import NodeJobs, places_are_certain

SQUEUE = "7|ann|RUNNING|1000|gres:gpu:2\n8|bob|COMPLETING|1000|N/A\n9|eve|COMPLETED|1000|gpu:1\n"
SHOWN = """JobId={job} JobName=x
   Requeue=1 Restarts={restarts} BatchFlag=1 Reboot=0 ExitCode=0:0
     Nodes=n1 CPU_IDs=0 Mem=0 GRES={gres}
"""


class Commands:
    """Slurm's commands by a script; `asked` are the jobs that scontrol was asked about."""

    def __init__(self, squeue: str, gres: dict[str, str]) -> None:
        self._squeue = squeue
        self._gres = gres
        self.asked: list[str] = []

    def run(self, program: str, *arguments: str, **_: Any) -> str:
        if program == "squeue":
            return self._squeue
        job = arguments[-1]
        self.asked.append(job)
        return SHOWN.format(job=job, restarts=3, gres=self._gres[job])


def uuids(positions: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"GPU-{one}" for one in positions)


def here(
    commands: Commands,
    uuids_at: Callable[[tuple[int, ...]], tuple[str, ...]] | None = uuids,
    in_hook: tuple[str, ...] = (),
) -> NodeJobs:
    return NodeJobs("n1", "c1", "boot", commands, uuids_at, in_hook.__contains__)  # type: ignore[arg-type]


def found(jobs: NodeJobs, *known: str) -> dict[str, tuple[str, ...] | None]:
    return {one.claim.owner: one.gpus for one in jobs.with_gpus(known)}


def test_each_job_on_the_node_has_the_gpus_at_its_places() -> None:
    commands = Commands(SQUEUE, {"7": "gpu:2(IDX:0,3)", "8": "gpu:1(IDX:1)"})
    jobs = here(commands).with_gpus(())
    assert {one.claim.owner: one.gpus for one in jobs} == {
        "job:c1:7:3": ("GPU-0", "GPU-3"),
        "job:c1:8:3": ("GPU-1",),
    }
    assert [(one.claim.user, one.claim.job_id, one.claim.boot_id) for one in jobs] == [
        ("ann", "7", "boot"),
        ("bob", "8", "boot"),
    ]


def test_a_job_without_gpus_here_is_none_of_them() -> None:
    assert found(here(Commands(SQUEUE, {"7": "", "8": "nic:1(IDX:0)"}))) == {}


def test_what_the_node_knows_is_not_asked_for() -> None:
    commands = Commands(SQUEUE, {"7": "gpu:1(IDX:0)", "8": ""})
    assert found(here(commands), "job:c1:7:3", "job:c2:8:0") == {}
    assert commands.asked == ["8"]


def test_where_a_job_may_have_others_its_gpus_are_not_known() -> None:
    gres = {"7": "gpu:1(IDX:0)", "8": "shard:1(1/4)"}
    assert found(here(Commands(SQUEUE, gres), None)) == {"job:c1:7:3": None, "job:c1:8:3": None}
    assert found(here(Commands(SQUEUE, gres))) == {"job:c1:7:3": ("GPU-0",), "job:c1:8:3": None}


def test_a_job_whose_prolog_is_under_way_has_nothing_yet() -> None:
    """One whose epilog is under way has its GPUs still."""
    commands = Commands(SQUEUE, {"7": "gpu:1(IDX:0)", "8": "gpu:1(IDX:1)"})
    assert found(here(commands, in_hook=("7", "8"))) == {"job:c1:8:3": ("GPU-1",)}


@pytest.mark.parametrize("answer", ["7 RUNNING\n", "squeue: a new manner of speaking\n"])
def test_an_answer_that_is_not_understood_is_no_empty_node(answer: str) -> None:
    with pytest.raises(SchedulerError, match="not understood"):
        here(Commands(answer, {})).with_gpus(())


@pytest.mark.parametrize(
    ("slurm", "constrained", "certain"),
    [
        (SlurmConfig(assignment="auto"), True, True),
        (SlurmConfig(assignment="auto"), False, False),
        (SlurmConfig(assignment="slurm", on_conflict="requeue"), False, True),
        (SlurmConfig(assignment="slurm", on_conflict="swap,requeue"), False, False),
        (
            SlurmConfig(
                assignment="slurm",
                on_conflict="requeue",
                on_conflict_by_partition=("debug=swap",),
            ),
            False,
            False,
        ),
    ],
)
def test_when_a_job_has_what_slurm_gave_it(
    slurm: SlurmConfig, constrained: bool, certain: bool
) -> None:
    assert places_are_certain(slurm, constrained=constrained) is certain


def test_a_hook_is_under_way_while_it_holds_its_jobs_lock(tmp_path: Path) -> None:
    assert not is_in_hook(tmp_path, "7")
    with job_lock(tmp_path, "7"):
        assert is_in_hook(tmp_path, "7")
        assert not is_in_hook(tmp_path, "8")
    assert not is_in_hook(tmp_path, "7")
    # What a hook that was killed has left.
    (tmp_path / "hook-locks" / "7.lock").touch()
    assert not is_in_hook(tmp_path, "7")
