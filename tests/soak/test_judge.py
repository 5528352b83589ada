"""The soak's judge finds what must not be, and nothing where all is well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canhazgpu_soak.evidence import Downtime, Evidence, Promises
from canhazgpu_soak.judge import (
    CONTRADICTION,
    HUNG_COMMAND,
    ON_A_ROGUE,
    TRACEBACK,
    TWO_HOLDERS,
    judge,
)
from canhazgpu_soak.late_releases import LATE, by_the_stores_clock
from canhazgpu_soak.lost_launches import lost_launches
from canhazgpu_soak.records import Answer, GpuAnswer, Holder, HookRun, Request, Rogue

PROMISES = Promises(release_s={"job": 10.0, "run": 5.0, "reserve": 0.0}, slack_s=20.0)
JOB = Holder("job", "job:1.0", "job:1", "n1", ("GPU-a", "GPU-b"), 100.0, 110.0)
RUN = Holder("run", "run:7", "run:7", "n1", ("GPU-b",), 110.0, 120.0)
RUN_REQUEST = Request("run", "run:7", 105.0, 121.0, 0)


def kinds(**evidence: object) -> list[str]:
    return [one.kind for one in judge(Evidence(**evidence), PROMISES)]  # type: ignore[arg-type]


def test_one_holder_after_the_other_is_well() -> None:
    assert kinds(holders=[JOB, RUN], requests=[RUN_REQUEST]) == []


def test_two_at_a_time_are_found_and_named() -> None:
    early = replace(RUN, began=109.5)
    (finding,) = judge(Evidence(holders=[early, JOB]), PROMISES)
    assert (finding.kind, finding.at) == (TWO_HOLDERS, 109.5)
    assert "GPU-b" in finding.text and "job:1.0" in finding.text and "run:7" in finding.text


def test_one_who_comes_within_anothers_time_is_found_behind_a_short_one() -> None:
    long = replace(JOB, last_seen=200.0)
    short = replace(RUN, owner="run:8", began=101.0, last_seen=102.0)
    late = replace(RUN, owner="run:9", began=150.0, last_seen=151.0)
    assert kinds(holders=[long, short, late]) == [TWO_HOLDERS, TWO_HOLDERS]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"owner": "job:1.0"}, id="a task of the same job"),
        pytest.param({"node": "n2"}, id="another node"),
        pytest.param({"gpus": ("GPU-c",)}, id="another GPU"),
    ],
)
def test_those_who_share_nothing_are_no_pair(other: dict[str, object]) -> None:
    during = replace(RUN, began=101.0, **other)  # type: ignore[arg-type]
    assert kinds(holders=[JOB, during]) == []


def test_a_job_and_its_next_attempt_are_two_holders() -> None:
    again = replace(JOB, owner="job:1.1", began=105.0)
    assert kinds(holders=[JOB, again]) == [TWO_HOLDERS] * len(JOB.gpus)


def test_shares_of_a_gpu_are_no_pair_until_they_are_more_than_it() -> None:
    half, quarter = replace(RUN, owner="job:2.0", share=0.5), replace(RUN, share=0.25)
    another = replace(half, owner="job:3.0")
    assert kinds(holders=[half, quarter]) == []
    assert kinds(holders=[half, half, another]) == []
    assert kinds(holders=[half, another, quarter]) == [TWO_HOLDERS] * 2
    assert kinds(holders=[half, RUN]) == [TWO_HOLDERS]


@pytest.mark.parametrize(
    ("rogue", "expected"),
    [
        pytest.param(Rogue("n1", "GPU-a", 90.0, 130.0), [ON_A_ROGUE], id="there before"),
        pytest.param(Rogue("n1", "GPU-a", 96.0, 130.0), [], id="came while the job started"),
        pytest.param(Rogue("n1", "GPU-a", 90.0, 99.0), [], id="gone before the task"),
        pytest.param(Rogue("n1", "GPU-c", 90.0, 130.0), [], id="on another GPU"),
        pytest.param(Rogue("n2", "GPU-a", 90.0, 130.0), [], id="on another node"),
    ],
)
def test_user_code_on_a_gpu_in_use_is_found(rogue: Rogue, expected: list[str]) -> None:
    hooks = [
        HookRun("prolog", "n1", "1", 50.0),
        HookRun("prolog", "n1", "1", 95.0),
        HookRun("epilog", "n1", "1", 98.0),
        HookRun("prolog", "n1", "1", 105.0),
        HookRun("prolog", "n2", "1", 99.0),
    ]
    assert kinds(holders=[JOB], hooks=hooks, rogues=[rogue]) == expected


def test_a_run_asked_when_its_command_began() -> None:
    before, after = (Rogue("n1", "GPU-b", at, 130.0) for at in (104.0, 106.0))
    assert kinds(holders=[RUN], requests=[RUN_REQUEST], rogues=[before]) == [ON_A_ROGUE]
    assert kinds(holders=[RUN], requests=[RUN_REQUEST], rogues=[after]) == []


def test_a_reservation_by_hand_ends_by_the_stores_clock() -> None:
    by_hand = replace(RUN, kind="reserve", owner="reserve:3", key="reserve:3")
    steps = [(105.0, 3600.0), (112.0, 5.0), (113.0, -3600.0), (114.0, 3600.0), (130.0, 60.0)]
    assert by_the_stores_clock([by_hand, RUN], steps) == [replace(by_hand, last_seen=114.0), RUN]
    assert by_the_stores_clock([by_hand], steps[1:2]) == [replace(by_hand, last_seen=115.0)]


def answer(at: float, key: str, state: str = "reserved") -> Answer:
    return Answer("n1", at, at + 1.0, (GpuAnswer("GPU-b", state, (key,) if key else ()),))


def test_a_late_release_is_found_once() -> None:
    answers = [answer(at, "job:1") for at in (139.0, 141.0, 145.0)]
    (finding,) = judge(Evidence(holders=[JOB], answers=answers), PROMISES)
    assert finding.kind == LATE and "job:1 was reserved 35.0 s" in finding.text


def test_what_an_old_copy_of_the_store_brings_back_counts_from_then() -> None:
    gone, back = answer(120.0, ""), [answer(at, "job:1") for at in (151.0, 165.0)]
    assert kinds(holders=[JOB], answers=[gone, *back], put_backs=[150.0]) == []
    # It was never gone, it is there for too long, or it is nobody's.
    assert kinds(holders=[JOB], answers=back, put_backs=[150.0]) == [LATE]
    assert kinds(holders=[JOB], answers=[gone, *back], put_backs=[130.0]) == [LATE]
    assert kinds(answers=[gone, *back], put_backs=[150.0]) == [LATE]


def test_while_its_node_is_down_nobody_releases_a_reservation() -> None:
    late = answer(145.0, "job:1")  # 35 s after its end, where 30 are allowed
    assert kinds(holders=[JOB], answers=[late], downtimes=[Downtime("n1", 105.0, 116.0)]) == []
    for other in (Downtime("n2", 105.0, 116.0), Downtime("n1", 105.0, 114.0)):
        assert kinds(holders=[JOB], answers=[late], downtimes=[other]) == [LATE]
    assert kinds(answers=[late], downtimes=[Downtime("n1", 105.0, 116.0)]) == [LATE]


def test_a_release_in_time_is_well() -> None:
    assert kinds(holders=[JOB], answers=[answer(139.0, "job:1")]) == []


def test_a_hook_of_the_job_is_a_sign_of_life() -> None:
    epilog = HookRun("epilog", "n1", "1", 130.0)
    assert kinds(holders=[JOB], hooks=[epilog], answers=[answer(145.0, "job:1")]) == []


def test_a_reservation_lasts_for_its_time_and_no_longer() -> None:
    request = Request("reserve", "reserve:3", 100.0, 101.0, 0, holds_until=131.0)
    assert kinds(requests=[request], answers=[answer(150.0, "reserve:3")]) == []
    assert kinds(requests=[request], answers=[answer(152.0, "reserve:3")]) == [LATE]


def test_a_reservation_may_begin_while_an_answer_is_made() -> None:
    slow = replace(answer(104.5, "run:7"), answered=109.0)
    assert kinds(requests=[RUN_REQUEST], answers=[slow]) == []
    assert kinds(requests=[RUN_REQUEST], answers=[replace(slow, answered=104.9)]) == [LATE]


def test_a_reservation_of_nobody_is_found() -> None:
    assert kinds(answers=[answer(100.0, "run:99")]) == [LATE]


def test_a_status_that_a_task_contradicts_is_found() -> None:
    inside = answer(115.0, "", "available")
    assert kinds(holders=[RUN], answers=[inside]) == [CONTRADICTION]
    assert kinds(holders=[RUN], answers=[replace(inside, answered=120.5)]) == []
    assert kinds(holders=[replace(RUN, is_checked=False)], answers=[inside]) == []


def test_commands_that_fail_are_found() -> None:
    traceback = replace(RUN_REQUEST, status=1, has_traceback=True)
    hung = replace(RUN_REQUEST, ended=None)
    assert kinds(requests=[RUN_REQUEST, traceback, hung]) == [TRACEBACK, HUNG_COMMAND]


def test_a_launch_that_slurmd_lost_is_told_from_a_job_that_hangs() -> None:
    hooks = [HookRun("prolog", "n1", job, 100.0) for job in ("1", "2", "3")]
    hooks.append(HookRun("prolog", "n2", "4", 100.0))
    hung = ["1 RUNNING Prolog", "2 RUNNING None", "4 RUNNING Prolog"]
    ran = Evidence(hooks=hooks, holders=[replace(JOB, key="job:2", last_seen=170.0)])
    assert lost_launches(hung, ran, [("n1", 101.0)]) == ["1 RUNNING Prolog"]
    assert lost_launches(hung, ran, [("slurmctld", 101.0)]) == [hung[0], hung[2]]
    assert lost_launches(hung, ran, [("n1", 99.0), ("n1", 221.0)]) == []
    assert lost_launches(hung, ran, [], [("n1", 161.0)]) == ["1 RUNNING Prolog"]
    assert lost_launches(hung, ran, [], [("n1", 171.0)]) == hung[:2]


def test_a_launch_may_be_lost_before_any_prolog() -> None:
    hooks = [
        HookRun("prolog", "n1", "1", 50.0),
        HookRun("epilog", "n1", "1", 60.0),
        *(HookRun("running", "", "1", at) for at in (55.0, 100.0, 102.0)),
    ]
    hung = ["1 RUNNING Prolog"]
    assert lost_launches(hung, Evidence(hooks=hooks), [("n2", 101.0)]) == hung
    assert lost_launches(hung, Evidence(hooks=hooks), [("n2", 99.0), ("n1", 61.0)]) == []


def test_a_job_that_slurm_runs_may_have_its_gpus() -> None:
    running = HookRun("running", "", "1", 170.0)
    assert kinds(holders=[JOB], hooks=[running], answers=[answer(171.0, "job:1")]) == []
