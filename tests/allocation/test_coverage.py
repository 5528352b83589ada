"""Whose a process on a reserved GPU is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canhazgpu.allocation.coverage import (
    ANY_PID_NAMESPACE,
    PidNamespace,
    covers,
    is_intruder,
    owner_is_known,
)
from canhazgpu.gpu.scan import GpuProcess
from canhazgpu.ledger.values import Claim
from canhazgpu.node.process_id import ProcessId

ALICE, BOB, ROOT = 1001, 1002, 0
HERE = PidNamespace("this boot", 4026531836)
JOB = Claim("job:c:7:0", "slurm", "alice", ALICE, job_id="7")
RUN = Claim(
    "run:1", "run", "alice", ALICE,
    boot_id="this boot", processes=(ProcessId(50, 9), ProcessId(60, 9)), pid_namespace=4026531836,
)  # fmt: skip
MANUAL = Claim("manual:1", "manual", "alice", ALICE)
UNREADABLE = Claim("unreadable", "unknown", "unknown")

MINE = GpuProcess(100, ALICE, "alice", "python3", 500)
BOBS = GpuProcess(101, BOB, "bob", "python3", 500)
ROOTS = GpuProcess(102, ROOT, "root", "python3", 500)
HIDDEN = GpuProcess(103, None, None, None, 500)


def in_job(process: GpuProcess, job: str) -> GpuProcess:
    return replace(process, job=job)


COVERED, INTRUDER, UNTOLD = (True, False), (False, True), (False, False)


@pytest.mark.parametrize(
    ("claim", "process", "expected"),
    [
        # A job: its cgroup decides, and without any its user.
        (JOB, in_job(MINE, "slurm:7"), COVERED),
        (JOB, in_job(ROOTS, "slurm:7"), COVERED),
        (JOB, in_job(HIDDEN, "slurm:7"), COVERED),
        (JOB, in_job(MINE, "slurm:8"), INTRUDER),
        (JOB, in_job(MINE, "slurm:77"), INTRUDER),
        (JOB, in_job(MINE, "pbs:7"), INTRUDER),
        (JOB, in_job(HIDDEN, "slurm:8"), INTRUDER),
        # A job without an id is not said to be another one.
        (JOB, in_job(MINE, "slurm:?s5K1"), COVERED),
        (JOB, in_job(BOBS, "slurm:?s5K1"), UNTOLD),
        (JOB, in_job(ROOTS, "slurm:?s5K1"), UNTOLD),
        (JOB, in_job(HIDDEN, "slurm:?s5K1"), UNTOLD),
        (JOB, MINE, COVERED),
        (JOB, BOBS, INTRUDER),
        (JOB, ROOTS, INTRUDER),
        (JOB, HIDDEN, UNTOLD),
        # A run: its processes and what descends from them, as whichever user; else its user.
        (RUN, replace(BOBS, pid=50), COVERED),
        (RUN, replace(BOBS, ancestors=(90, 60, 1)), COVERED),
        (RUN, replace(ROOTS, ancestors=(60, 1)), COVERED),
        (RUN, replace(HIDDEN, ancestors=(60, 1)), COVERED),
        (RUN, replace(BOBS, ancestors=(90, 1)), INTRUDER),
        (RUN, replace(MINE, ancestors=(90, 1)), COVERED),
        (RUN, in_job(MINE, "slurm:8"), COVERED),
        (RUN, in_job(BOBS, "slurm:8"), INTRUDER),
        (RUN, HIDDEN, UNTOLD),
        (replace(RUN, processes=(ProcessId(1, 9),)), replace(BOBS, ancestors=(90, 1)), INTRUDER),
        # A person.
        (MANUAL, MINE, COVERED),
        (MANUAL, in_job(MINE, "slurm:8"), COVERED),
        (MANUAL, in_job(BOBS, "slurm:?s5K1"), INTRUDER),
        (MANUAL, BOBS, INTRUDER),
        (MANUAL, replace(BOBS, user=None), INTRUDER),
        (MANUAL, in_job(HIDDEN, "slurm:8"), UNTOLD),
        (MANUAL, HIDDEN, UNTOLD),
        # The uid counts, and the name only without it.
        (MANUAL, replace(MINE, user="al"), COVERED),
        (MANUAL, replace(BOBS, user="alice"), INTRUDER),
        (replace(MANUAL, uid=None), MINE, COVERED),
        (replace(MANUAL, uid=None), BOBS, INTRUDER),
        (MANUAL, replace(MINE, uid=None), COVERED),
        (replace(MANUAL, uid=None), replace(BOBS, user=None), UNTOLD),
        # Nobody is an intruder on a GPU of nobody knows whom.
        (UNREADABLE, BOBS, UNTOLD),
    ],
)
def test_whose_it_is(claim: Claim, process: GpuProcess, expected: tuple[bool, bool]) -> None:
    assert (covers(claim, process, HERE), is_intruder(claim, process, HERE)) == expected


CHILD = replace(BOBS, ancestors=(50,))


@pytest.mark.parametrize(
    ("claim", "namespace", "covered"),
    [
        (RUN, HERE, True),
        (RUN, ANY_PID_NAMESPACE, True),
        (replace(RUN, boot_id=None, pid_namespace=None), HERE, True),
        (replace(RUN, boot_id="an earlier boot"), HERE, False),
        (replace(RUN, pid_namespace=1), HERE, False),
        (replace(RUN, boot_id="an earlier boot"), ANY_PID_NAMESPACE, True),
    ],
)
def test_pids_mean_a_process_only_where_they_were_given(
    claim: Claim, namespace: PidNamespace, covered: bool
) -> None:
    assert covers(claim, CHILD, namespace) is covered
    assert is_intruder(claim, CHILD, namespace) is not covered


def test_a_cgroup_tells_something_of_the_owner() -> None:
    assert owner_is_known(in_job(HIDDEN, "slurm:7"))
    assert not owner_is_known(HIDDEN)
