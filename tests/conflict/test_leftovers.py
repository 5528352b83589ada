"""What an ended job left on its GPUs: what is ended, what is waited for, what is held back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes.scripted_ledger import NODE, free_gpu, reservation, scan_observation, used_gpu, uuid

from canhazgpu.conflict.kill_exemptions import ProcessRights
from canhazgpu.conflict.leftovers import (
    EndedJob,
    Leftover,
    find_leftovers,
    gpus_held_by_others,
    gpus_of_ended_job,
    gpus_to_quarantine,
    quarantine_reason,
    settling_gpus,
)
from canhazgpu.gpu.scan import GpuProcess, GpuReading
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.co_holders import combine
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.values import NodeView

OWNER = JobOwner("c1", "12", 1)
JOB = EndedJob("slurm:12", "mallory", 1002, began_ticks=100)
RIGHTS = ProcessRights((), {}, ("root",))
USAGE = UsagePolicy(1024)


def view(**held: str) -> NodeView:
    found = [reservation(int(name[1:]), owner) for name, owner in held.items()]
    return NodeView(NODE, 1.0, None, None, {one.gpu: one for one in found})


def test_the_gpus_that_the_job_held_and_nobody_else_has() -> None:
    now = view(g0="job:c1:12:1", g1="job:c1:12:0", g2="job:c1:13:0", g3="job:c1:12:2")
    recorded = [uuid(0), uuid(2), uuid(5)]
    assert gpus_of_ended_job(OWNER, recorded, now) == (uuid(0), uuid(1), uuid(5))
    assert gpus_of_ended_job(OWNER, [], view()) == ()


def found(
    *gpus: GpuReading, rights: ProcessRights = RIGHTS, **started: int
) -> list[tuple[bool, str]]:
    starts = {int(name[1:]): at for name, at in started.items()}
    leftovers = find_leftovers(JOB, gpus, starts, lambda: rights, USAGE)
    return [(one.of_job, one.exemption) for one in leftovers]


def test_every_process_is_judged() -> None:
    assert found(used_gpu(0, pid=7), p7=200) == [(True, "")]
    assert found(used_gpu(0, pid=7), p7=50) == [(False, "it ran before the job")]
    assert found(used_gpu(0, pid=7)) == [(False, "it cannot be told when it started")]
    another = ProcessRights((), {"13": 1002}, ())
    assert found(used_gpu(0, pid=7), p7=200, rights=another) == [
        (True, "another job of mallory is here")
    ]
    assert found(free_gpu(0)) == []


def test_the_scheduler_is_not_asked_where_nothing_is_the_jobs() -> None:
    def asked() -> ProcessRights:
        raise AssertionError

    assert find_leftovers(JOB, [used_gpu(0, pid=7)], {7: 50}, asked, USAGE)
    assert find_leftovers(JOB, [free_gpu(0)], {}, asked, USAGE) == ()


def stands(gpu: GpuReading, ours: bool, spared: str, **changes: Any) -> Leftover:
    return Leftover(gpu, replace(gpu.processes[0], **changes), ours, spared)


BUSY = used_gpu(0, pid=7)
ABANDONED = replace(used_gpu(0), processes=())


@pytest.mark.parametrize(
    ("gpu", "leftovers", "ends", "settles", "stuck"),
    [
        (free_gpu(0), (), True, False, False),
        # Memory of nobody: waited for, then held back.
        (ABANDONED, (), True, True, True),
        (ABANDONED, (), False, True, True),
        # The job's own that does not end.
        (BUSY, (stands(BUSY, True, ""),), True, True, True),
        (BUSY, (stands(BUSY, True, ""),), False, False, False),
        # Somebody's: in use WITHOUT RESERVATION, as everybody sees.
        (BUSY, (stands(BUSY, False, "it is bob's"),), True, False, False),
        (BUSY, (stands(BUSY, True, "root is a protected user"),), True, False, False),
        # Of unknown owner: perhaps it has just ended.
        (BUSY, (stands(BUSY, False, "its owner is not known", uid=None),), True, True, False),
    ],
)
def test_which_gpus_are_waited_for_and_held_back(
    gpu: GpuReading, leftovers: tuple[Leftover, ...], ends: bool, settles: bool, stuck: bool
) -> None:
    now = scan_observation(gpu, used_gpu(1))
    held = (uuid(0),)
    assert bool(settling_gpus(held, now, leftovers, ends=ends)) == settles
    assert bool(gpus_to_quarantine(held, now, leftovers, ends=ends)) == stuck


def test_the_reason_of_a_quarantine_says_what_whose_and_by_whom() -> None:
    process = GpuProcess(7, 1002, "ann", "python3", 8000)
    gpu = replace(used_gpu(0), memory_used_mb=8045, processes=(process,))
    reason = "job 12 of ann left 8045MB used by PID 7 (python3)"
    assert quarantine_reason(gpu, "12", "ann") == reason
    nobody = replace(gpu, processes=(), memory_used_mb=None)
    assert quarantine_reason(nobody, "12", "ann") == (
        "job 12 of ann left memory used by no process shown"
    )


def test_gpus_that_others_hold_beside_the_job() -> None:
    shared = combine([reservation(0, "job:c1:12:1"), reservation(0, "job:c1:13:0")])
    assert shared is not None
    now = NodeView(NODE, 1.0, None, None, {uuid(0): shared})
    assert gpus_of_ended_job(OWNER, [uuid(0)], now) == (uuid(0),)
    assert gpus_held_by_others(OWNER, now) == {uuid(0)}
    assert gpus_held_by_others(OWNER, view(g1="job:c1:12:0")) == frozenset()
