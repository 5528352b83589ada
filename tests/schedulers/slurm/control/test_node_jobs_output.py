"""What squeue and scontrol print of the jobs on a node."""

from __future__ import annotations

import pytest

from canhazgpu.schedulers.slurm.control.node_jobs_output import (
    JobOnNode,
    asks_for_gpus,
    attempt_of,
    gpu_positions,
    parse_started_jobs,
)


def job(gres: str, state: str = "RUNNING") -> JobOnNode:
    return JobOnNode("17", "ann", state, 1000.0, gres)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("17|ann|RUNNING|1000|gres:gpu:1", [job("gres:gpu:1")]),
        ("17|ann|COMPLETED|1000|shard:2", [job("shard:2", "COMPLETED")]),
        # It may have GPUs that it asked for in another way.
        ("17|ann|RUNNING|1000|N/A", [job("N/A")]),
        ("17|ann|PENDING|1000|gres:gpu:1", []),
        # The node boots for this job.
        ("17|ann|CONFIGURING|1000|gres:gpu:1", []),
        ("17|ann|RUNNING|N/A|gres:gpu:1", []),
        ("17|ann|RUNNING|2026-11-29T07:57:52|gres:gpu:1", []),
        ("17 RUNNING", []),
        ("", []),
    ],
)
def test_lines_of_squeue(line: str, found: list[JobOnNode]) -> None:
    assert parse_started_jobs(line) == found


@pytest.mark.parametrize(
    ("gres", "asks"),
    [
        ("gres:gpu:1", True),
        ("gres/gpu:1", True),
        ("shard:2", True),
        ("mps:5", True),
        ("N/A", False),
        ("gres:nic:1", False),
    ],
)
def test_which_jobs_asked_for_gpus(gres: str, asks: bool) -> None:
    assert asks_for_gpus(job(gres)) is asks


@pytest.mark.parametrize(
    ("gres", "positions"),
    [
        ("", ()),
        ("nic:1(IDX:0)", ()),
        ("gpu:1(IDX:3)", (3,)),
        ("gpu:3(IDX:0-1,5)", (0, 1, 5)),
        ("gpu:a100:1(IDX:0),gpu:3090:2(IDX:2-3)", (0, 2, 3)),
        ("nic:1(IDX:0),gpu:1(IDX:1)", (1,)),
        ("gpu:2", None),
        ("gpu:a:1(IDX:0),gpu:b:1", None),
        ("gpu:1(IDX:1-)", None),
        ("shard:1(1/4,0/4)", None),
        ("gpu:1(IDX:0),mps:50(50/100)", None),
    ],
)
def test_places_of_a_jobs_gpus(gres: str, positions: tuple[int, ...] | None) -> None:
    assert gpu_positions(gres) == positions


SHOWN = "JobId=17 JobName=x\n   Requeue=1 Restarts=2 BatchFlag=1 Reboot=0 ExitCode=0:0\n"


@pytest.mark.parametrize(
    ("text", "attempt"),
    [
        (SHOWN, 2),
        ("JobId=17 JobName=x\n", None),
        # By a text of the user's.
        (SHOWN + "   Requeue=1 Restarts=0 BatchFlag=1\n", None),
    ],
)
def test_how_often_a_job_was_restarted(text: str, attempt: int | None) -> None:
    assert attempt_of(text) == attempt
