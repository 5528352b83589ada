"""What is due for a run, by the record and by what was seen of it."""

from __future__ import annotations

import math
import signal
from dataclasses import replace

from canhazgpu.agent.watcher.runs.run_plan import (
    CONFIRM_AFTER_S,
    LOOK_PAUSE_S,
    RELEASE_RETRY_PAUSES_S,
    SHORT_RUN_S,
    SIGKILL_DELAY_S,
    Heartbeat,
    Phase,
    RunPlan,
    Signal,
    Tell,
)
from canhazgpu.ledger.local.runs.run_record import RunRecord
from canhazgpu.ledger.owner import RUN
from canhazgpu.ledger.values import Claim
from canhazgpu.node.process_id import ProcessId

COMMAND, AGENT, CHILD = ProcessId(10, 1), ProcessId(1, 1), ProcessId(11, 2)
CLAIM = Claim("run:a", RUN, "ann", 1000, processes=(COMMAND,))
RECORD = RunRecord(CLAIM, "run:a:x", ("GPU-0",), 1000, (), 100.0)
HEARTBEAT_S = 15.0
TERM, KILL = Signal(signal.SIGTERM), Signal(signal.SIGKILL)


def plan(now: float = 100.0, **changes: object) -> RunPlan:
    return RunPlan(replace(RECORD, **changes), AGENT, HEARTBEAT_S, now)  # type: ignore[arg-type]


def kept_by_agent(now: float = 100.0) -> RunPlan:
    return plan(now, claim=replace(CLAIM, processes=(COMMAND, AGENT)))


def test_a_short_run_costs_no_heartbeat() -> None:
    one = plan()
    assert one.next_at() == 100.0 + SHORT_RUN_S
    assert one.heartbeat(100.0) is None
    assert one.heartbeat(100.0 + SHORT_RUN_S) == Heartbeat((COMMAND, AGENT), restores=False)


def test_processes_are_recorded_once() -> None:
    one = plan()
    sent = one.heartbeat(101.0)
    assert sent is not None
    one.renewed(sent)
    assert one.next_at() == 101.0 + HEARTBEAT_S
    assert one.heartbeat(116.0) == Heartbeat(None, restores=False)


def test_processes_that_were_not_recorded_are_sent_again() -> None:
    one = plan()
    first = one.heartbeat(101.0)
    assert one.heartbeat(116.0) == first


def test_a_claim_that_names_the_agent_needs_nothing_new() -> None:
    one = kept_by_agent()
    assert one.next_at() == 100.0 + HEARTBEAT_S
    assert one.heartbeat(115.0) == Heartbeat(None, restores=False)


def test_a_reservation_is_missing_when_two_looks_miss_it() -> None:
    one = kept_by_agent()
    one.heartbeat(115.0)
    one.missed(115.5)
    assert one.next_at() == 115.5 + CONFIRM_AFTER_S
    assert one.heartbeat(118.0) == Heartbeat(None, restores=True)
    one.renewed(Heartbeat(None, restores=True))
    assert one.heartbeat(133.0) == Heartbeat(None, restores=False)


def test_what_is_lost_is_told_once_and_has_no_heartbeats() -> None:
    one = plan()
    assert list(one.lost("taken", 101.0)) == [Tell("the reservation is lost: taken")]
    assert one.heartbeat(200.0) is None
    assert one.next_at() == math.inf


def test_a_run_that_ends_when_lost_is_ended() -> None:
    one = plan(ends_when_lost=True)
    assert list(one.lost("taken", 101.0)) == [Tell("the reservation is lost: taken"), TERM]
    assert list(one.actions(101.0 + SIGKILL_DELAY_S)) == [KILL]


def test_a_run_is_ended_at_its_time_then_killed_again_and_again() -> None:
    one = plan(timeout_s=60.0)
    assert list(one.actions(159.0)) == []
    assert list(one.actions(160.0)) == [
        Tell("the run's time of 60 s is over; ending it"),
        TERM,
    ]
    assert list(one.actions(161.0)) == []
    for kills in (170.0, 180.0):
        assert list(one.actions(kills)) == [KILL]


def test_who_watches_later_ends_it_at_the_same_time() -> None:
    one = plan(130.0, timeout_s=60.0)
    assert list(one.actions(159.0)) == []
    assert one.next_at(renews=False) == 160.0
    # Or at once, with the same grace.
    late = plan(300.0, timeout_s=60.0)
    assert TERM in late.actions(300.0)
    assert list(late.actions(309.0)) == []
    assert list(late.actions(310.0)) == [KILL]


def test_the_end_of_the_command_is_looked_into_once() -> None:
    one = kept_by_agent()
    assert not one.is_end_due(101.0)
    one.ended(101.0)
    assert one.phase is Phase.ENDING
    assert one.next_at() == 101.0
    assert one.next_at(ends=False) == 115.0
    assert one.is_end_due(101.0)
    assert not one.is_end_due(101.0)


def test_what_is_left_keeps_the_reservation_instead_of_the_command() -> None:
    one = kept_by_agent()
    one.ended(101.0)
    one.left([CHILD], 102.0)
    assert one.heartbeat(102.0) == Heartbeat((CHILD, AGENT), restores=False)


def test_processes_that_come_and_go_are_looked_for_once_a_second() -> None:
    one = plan(100.0)
    one.ended(101.0)
    assert one.is_end_due(101.0)
    one.left([CHILD], 101.0)
    one.ended(101.01)
    assert not one.is_end_due(101.01)
    assert one.next_at(renews=False) == 101.0 + LOOK_PAUSE_S
    assert one.is_end_due(101.0 + LOOK_PAUSE_S)
    one.left([CHILD], 102.0)
    one.ended(110.0)
    assert one.is_end_due(110.0)


def test_a_release_that_fails_is_tried_ever_more_rarely() -> None:
    one = kept_by_agent()
    one.ended(101.0)
    assert one.is_end_due(101.0)
    pauses = (*RELEASE_RETRY_PAUSES_S, RELEASE_RETRY_PAUSES_S[-1])
    now = 101.0
    for pause in pauses:
        one.end_failed(now)
        assert one.next_at(renews=False) == now + pause
        now += pause
        assert one.is_end_due(now)


def test_while_it_is_not_known_who_is_left_nobody_is_taken_out() -> None:
    one = plan()
    one.ended(100.5)
    assert one.heartbeat(101.0) == Heartbeat(None, restores=False)
