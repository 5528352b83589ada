"""What is done about a report, by what Slurm's accounting says of its job."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canhazgpu.schedulers.slurm.job_report.accounted_job import (
    MAX_AGE_S,
    AccountedJob,
    JobReport,
    Step,
    decide,
    parse_jobs,
)

REPORT = JobReport("7", 1000.0, "GPU 0: never used")
JOB = AccountedJob("2_2", 900.0, 999.0, 1, "")
NOW = 1010.0


def steps(job: AccountedJob | None, node: str = "n1", now: float = NOW) -> Step:
    return decide(REPORT, {"7": job} if job else {}, node, now)[0]


def test_an_ended_job_without_a_comment_gets_one() -> None:
    assert decide(REPORT, {"7": JOB}, "n1", NOW) == (
        Step.WRITE,
        "canhazgpu: GPU 0: never used",
    )


@pytest.mark.parametrize(
    "job", [None, replace(JOB, ended_at=None), replace(JOB, started_at=None, ended_at=None)]
)
def test_what_the_accounting_does_not_know_yet_waits(job: AccountedJob | None) -> None:
    assert steps(job) is Step.WAIT
    assert steps(job, now=1000.0 + MAX_AGE_S + 1) is Step.DROP


@pytest.mark.parametrize(
    "job",
    [
        replace(JOB, comment="another tool's"),
        replace(JOB, started_at=1100.0, ended_at=None),  # of a later attempt
        replace(JOB, node_count=20, comment="canhazgpu: n2, one of 20 nodes: GPU 0: never used"),
    ],
)
def test_what_is_not_for_this_node_to_say_is_dropped(job: AccountedJob) -> None:
    assert steps(job) is Step.DROP


def test_of_a_job_of_several_nodes_each_looks_whether_its_part_is_there() -> None:
    job = replace(JOB, node_count=2)
    step, comment = decide(REPORT, {"7": job}, "n2", NOW)
    assert step is Step.WRITE_AND_LOOK
    assert steps(replace(job, comment=comment), "n2") is Step.DROP
    # Another node wrote what it had read before.
    assert steps(replace(job, comment="canhazgpu: n1: GPU 1: never used"), "n2") is (
        Step.WRITE_AND_LOOK
    )


def test_a_comment_cannot_forge_a_job() -> None:
    comment = "x\n8|8|900|999|n1|"
    text = f"7#k#2_2#k#900#k#Unknown#k#2#k#{comment}\n9#k#9#k#soon#k##k#n[#k#\n"
    found = parse_jobs(text, "#k#")
    assert found == {
        "7": AccountedJob("2_2", 900.0, None, 2, "x"),
        "9": AccountedJob("9", None, None, 1, ""),
    }
