"""Who may be ended: nobody who has, or may have, a right to be where he is."""

from __future__ import annotations

from typing import Any

import pytest

from canhazgpu.conflict.kill_exemptions import (
    ProcessRights,
    exemption_reason,
    foreign_process_reason,
    protected_user_reason,
)
from canhazgpu.gpu.scan import GpuProcess
from canhazgpu.ledger.values import Claim
from canhazgpu.node.process_id import ProcessId

OWN = "slurm:12"
BOB = 1002


def process(**known: Any) -> GpuProcess:
    given = {"pid": 77, "uid": BOB, "user": "bob", "name": "python3", "memory_mb": 5000}
    return GpuProcess(**{**given, **known})


def rights(
    *claims: Claim, jobs: Any = None, protected: tuple[str, ...] = ("root",)
) -> ProcessRights:
    return ProcessRights(claims, {} if jobs is None else jobs, protected)


MANUAL = Claim("manual:1", "manual", "bob", BOB)
ALICES = Claim("manual:2", "manual", "alice", 1001)
JOB_13 = Claim("job:c1:13:0", "slurm", "bob", BOB, job_id="13")
RUN = Claim("run:1", "run", "alice", 1001, processes=(ProcessId(50, 1),))


@pytest.mark.parametrize(
    ("who", "known", "why"),
    [
        (process(), rights(), ""),
        (process(), rights(ALICES, jobs={"14": 1001}), ""),
        (process(job=OWN), rights(), ""),
        # A job that Slurm has no more left it behind.
        (process(job="slurm:99"), rights(jobs={"14": 1001}), ""),
        # Protected.
        (process(uid=0, user="root"), rights(), "root is a protected user"),
        (process(uid=999, user="gdm"), rights(protected=()), "gdm is a protected user"),
        (process(uid=0, user=None), rights(protected=()), "0 is a protected user"),
        (process(), rights(protected=("bob",)), "bob is a protected user"),
        (process(user=None), rights(protected=("1002",)), "1002 is a protected user"),
        (process(uid=0, user="root", job=OWN), rights(), "root is a protected user"),
        (process(uid=None, user=None), rights(), "its owner is not known"),
        (process(uid=None, user="bob"), rights(), "its owner is not known"),
        # Covered by a reservation of any GPU.
        (process(), rights(MANUAL), "the reservation of bob covers it"),
        (process(), rights(JOB_13), "the reservation of bob covers it"),
        (process(job="slurm:13"), rights(JOB_13), "the reservation of bob covers it"),
        (process(ancestors=(60, 50, 1)), rights(RUN), "the reservation of alice covers it"),
        # A job's, with GPUs or without.
        (process(job="slurm:14"), rights(jobs={"14": 1001}), "it belongs to job 14"),
        (process(job="slurm:?s5K1"), rights(), "it is in an unidentified slurm job s5K1"),
        (process(job="slurm:14@n2"), rights(jobs={"14": 1001}), "it belongs to slurm job 14@n2"),
        (process(job="slurm:12@n2"), rights(), "it belongs to slurm job 12@n2"),
        (process(), rights(jobs={"14": BOB}), "another job of bob is here"),
        (process(job="slurm:99"), ProcessRights((), None, ()), "the scheduler does not say"),
        (process(), ProcessRights((), None, ()), "the scheduler does not say"),
        (process(job=OWN), ProcessRights((), None, ()), ""),
    ],
)
def test_who_is_spared(who: GpuProcess, known: ProcessRights, why: str) -> None:
    found = exemption_reason(who, OWN, known)
    assert found.startswith(why) and bool(found) == bool(why)


def test_a_user_who_calls_himself_like_a_protected_one_is_not_more_protected() -> None:
    assert protected_user_reason(process(name="root"), ("root",)) == ""


@pytest.mark.parametrize(
    ("who", "began", "started", "why"),
    [
        (process(job=OWN), None, None, ""),
        (process(job=OWN, uid=1001), 100, 5, ""),
        (process(job="slurm:13"), 100, 200, "it belongs to slurm job 13"),
        (process(job="slurm:?s5K1"), 100, 200, "it belongs to unidentified slurm job s5K1"),
        (process(), 100, 200, ""),
        (process(), 100, 100, ""),
        (process(), 100, 99, "it ran before the job"),
        (process(), None, 200, "it cannot be told when it started"),
        (process(), 100, None, "it cannot be told when it started"),
        (process(uid=1001, user="alice"), 100, 200, "it is alice's"),
        (process(uid=None, user=None), 100, 200, "its owner is not known"),
    ],
)
def test_whose_a_leftover_is(
    who: GpuProcess, began: int | None, started: int | None, why: str
) -> None:
    assert foreign_process_reason(who, OWN, BOB, began=began, started=started) == why
