"""Faults are those of the seed; the table counts each kind of violation."""

from __future__ import annotations

from itertools import pairwise

from canhazgpu_soak.evidence import Evidence, Finding
from canhazgpu_soak.faults.plan import HOGS, WEIGHTS, plan_faults
from canhazgpu_soak.judge import TWO_HOLDERS
from canhazgpu_soak.late_releases import LATE
from canhazgpu_soak.records import Holder, Request
from canhazgpu_soak.report import VIOLATIONS, Outcome, table

NODES = ("n1", "n2")
HOLDER = Holder("run", "run:7", "run:7", "n1", ("GPU-a",), 12.5, 20.0)
EVIDENCE = Evidence(holders=[HOLDER], requests=[Request("run", "run:7", 10.0, 20.0, 0)])


def test_a_seed_decides_all_faults() -> None:
    one, again, other = (plan_faults(seed, 600, NODES, WEIGHTS) for seed in ("1", "1", "2"))
    assert one == again != other


def test_a_long_plan_has_every_kind_in_order_and_within_its_time() -> None:
    plan = plan_faults("1", 7200, NODES, WEIGHTS)
    assert {fault.kind for fault in plan} == set(WEIGHTS)
    assert all(one.at_s <= other.at_s for one, other in pairwise(plan))
    assert plan[0].at_s > 5 and plan[-1].at_s < 7200
    assert {fault.node for fault in plan} == set(NODES)
    assert all(0 <= fault.draw < 1 and 0 < fault.lasts_s <= 120 for fault in plan)


def test_only_faults_that_can_be_made_are_planned() -> None:
    assert {fault.kind for fault in plan_faults("1", 600, NODES, ["store killed"])} == {
        "store killed"
    }


def test_a_starved_soak_has_no_cpu_for_half_of_its_time() -> None:
    plan = plan_faults("1", 1200, NODES, [HOGS], starved=True)
    assert sum(one.lasts_s for one in plan if one.lasts_s > 120) == 600


def test_the_store_has_one_fault_at_a_time() -> None:
    plan = [one for one in plan_faults("1", 7200, NODES, WEIGHTS) if one.is_of_store]
    assert len(plan) > 20
    assert all(one.at_s + one.lasts_s < other.at_s for one, other in pairwise(plan))


def row(text: str, name: str) -> str:
    (line,) = (one for one in text.splitlines() if one.startswith(f"  {name}  "))
    return line.split()[-1]


def test_nothing_found_is_a_row_of_zeros_each() -> None:
    outcome = Outcome("1", 60, EVIDENCE, [], faults={"agent killed": 3}, missed={"hook killed": 2})
    text = table(outcome)
    assert outcome.holds and "All promises were kept." in text
    assert [row(text, name) for name in VIOLATIONS] == ["0"] * len(VIOLATIONS)
    assert row(text, "agent killed") == "3"
    assert row(text, "all of them") == "3"
    assert row(text, "planned, but nothing was there to strike") == "2"
    assert "longest wait for a run's GPUs" in text and "2.5 s" in text


def test_each_violation_is_counted_and_named() -> None:
    findings = [
        Finding(TWO_HOLDERS, 11.0, "run:7 and job:1"),
        Finding(TWO_HOLDERS, 12.0, "run:8 and job:1"),
        Finding(LATE, 13.0, "job:2 was late"),
    ]
    outcome = Outcome("1", 60, EVIDENCE, findings)
    text = table(outcome)
    assert not outcome.holds
    assert (row(text, TWO_HOLDERS), row(text, LATE)) == ("2", "1")
    assert "FAILED: 3 violations" in text and "13.00" in text and "job:2 was late" in text


def test_of_many_violations_some_are_named() -> None:
    findings = [Finding(LATE, float(at), f"job:{at}.") for at in range(20)]
    text = table(Outcome("1", 60, EVIDENCE, findings))
    assert "job:9." in text and "job:10." not in text and "and 10 more of this kind" in text


def test_a_soak_in_which_nobody_had_a_gpu_has_failed() -> None:
    outcome = Outcome("1", 60, Evidence(), [])
    assert not outcome.holds and "no task had a GPU" in table(outcome)
