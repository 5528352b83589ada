"""Which reader scans for whom: every order of requests, scans, hangs and ends."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from canhazgpu.agent.scanner.messages import ReadSettings
from canhazgpu.agent.scanner.schedule import (
    END_GRACE_S,
    MAX_BUSY_READERS,
    MAX_STUCK_READERS,
    Deliver,
    End,
    Fail,
    Kill,
    Order,
    Schedule,
    Start,
)

IDLE_S = 5.0
NVML = ReadSettings("n1", "nvml", "", 1.0, "/etc/slurm/slurm.conf", "/run/canhazgpu")
OTHER = ReadSettings("n1", "nvml", "/lib/other.so", 1.0, "/etc/slurm/slurm.conf", "/run/canhazgpu")


def warm() -> Schedule:
    """Return one with an idle reader, number 1."""
    schedule = Schedule(IDLE_S)
    schedule.request(1, NVML, 10.0, 0.0)
    assert schedule.actions(0.0) == [Start(1, NVML)]
    schedule.scanned(1, b"first", 0.1, stays=True)
    assert schedule.actions(0.1) == [Deliver(1, b"first")]
    return schedule


def test_an_idle_reader_scans_at_once() -> None:
    schedule = warm()
    schedule.request(2, NVML, 10.0, 1.0)
    assert schedule.actions(1.0) == [Order(1)]


def test_a_reader_of_other_settings_does_not() -> None:
    schedule = warm()
    schedule.request(2, OTHER, 10.0, 1.0)
    assert schedule.actions(1.0) == [Start(2, OTHER)]


def test_those_who_wait_share_the_next_scan() -> None:
    schedule = warm()
    for number in (2, 3, 4):
        schedule.request(number, NVML, 10.0, 1.0)
        assert schedule.actions(1.0) == ([Order(1)] if number == 2 else [])
    schedule.scanned(1, b"second", 1.1, stays=True)
    assert schedule.actions(1.1) == [Deliver(2, b"second"), Order(1)]
    schedule.scanned(1, b"third", 1.2, stays=True)
    assert schedule.actions(1.2) == [Deliver(3, b"third"), Deliver(4, b"third")]


def test_a_scan_that_takes_its_time_is_not_waited_for() -> None:
    schedule = warm()
    schedule.request(2, NVML, 11.0, 1.0)
    schedule.actions(1.0)
    schedule.request(3, NVML, 12.0, 2.0)
    assert schedule.actions(2.0) == []
    assert schedule.next_time() == 4.5
    assert schedule.actions(4.5) == [Start(2, NVML)]
    schedule.scanned(2, b"by the second", 4.6, stays=True)
    assert schedule.actions(4.6) == [Deliver(3, b"by the second")]
    assert schedule.actions(11.0) == [Fail(2, "no answer within 10 s"), Kill(1), End(2)]


def test_of_two_readers_one_is_kept() -> None:
    schedule = warm()
    schedule.request(2, NVML, 11.0, 1.0)
    schedule.actions(1.0)
    schedule.request(3, NVML, 11.0, 2.0)
    assert schedule.actions(5.0) == [Start(2, NVML)]
    schedule.scanned(2, b"a", 5.1, stays=True)
    schedule.scanned(1, b"b", 5.2, stays=True)
    assert schedule.actions(5.2) == [Deliver(3, b"a"), Deliver(2, b"b"), End(1)]


def test_a_stale_driver_is_read_by_a_new_reader() -> None:
    schedule = warm()
    schedule.request(2, NVML, 10.0, 1.0)
    schedule.actions(1.0)
    schedule.request(3, NVML, 10.0, 1.0)
    schedule.found_stale(1, 1.1)
    assert schedule.actions(1.1) == [Start(2, NVML)]
    schedule.scanned(2, b"anew", 1.2, stays=False)
    assert schedule.actions(1.2) == [Deliver(3, b"anew"), Deliver(2, b"anew")]


def test_a_new_reader_that_dies_is_what_the_source_does() -> None:
    schedule = Schedule(IDLE_S)
    schedule.request(1, NVML, 10.0, 0.0)
    schedule.actions(0.0)
    schedule.ended(1, "died of SIGSEGV")
    assert schedule.actions(0.1) == [Fail(1, "died of SIGSEGV")]
    assert schedule.readers == frozenset()


def test_an_old_reader_that_dies_is_replaced() -> None:
    schedule = warm()
    schedule.request(2, NVML, 10.0, 1.0)
    schedule.actions(1.0)
    schedule.ended(1, "died of SIGSEGV")
    assert schedule.actions(1.1) == [Start(2, NVML)]


def test_an_idle_reader_ends_and_is_killed_if_it_does_not() -> None:
    schedule = warm()
    assert schedule.next_time() == 0.1 + IDLE_S
    assert schedule.actions(5.0) == []
    assert schedule.actions(0.1 + IDLE_S) == [End(1)]
    assert schedule.actions(0.1 + IDLE_S + END_GRACE_S) == [Kill(1)]
    assert schedule.next_time() is None


def test_releasing_ends_idle_readers_and_those_that_scan_after_their_scan() -> None:
    schedule = warm()
    schedule.request(2, OTHER, 10.0, 1.0)
    schedule.actions(1.0)
    schedule.release(1.1)
    assert schedule.actions(1.1) == [End(1)]
    schedule.scanned(2, b"last", 1.2, stays=True)
    assert schedule.actions(1.2) == [Deliver(2, b"last"), End(2)]


def test_where_readers_cannot_be_killed_no_more_are_started() -> None:
    schedule = Schedule(IDLE_S)
    for number in range(MAX_STUCK_READERS):
        schedule.request(number, NVML, number + 0.5, float(number))
        schedule.actions(float(number))
        schedule.actions(number + 0.5)
    assert len(schedule.readers) == MAX_STUCK_READERS
    schedule.request(99, NVML, 110.0, 100.0)
    (refused,) = schedule.actions(100.0)
    assert refused == Fail(99, "16 earlier scans hang and cannot be ended")
    schedule.ended(1, "died of SIGKILL")
    schedule.request(100, NVML, 110.0, 100.0)
    assert schedule.actions(100.0) == [Start(MAX_STUCK_READERS + 1, NVML)]


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens: a scan that began after its request, or a failure; one answer each."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = Schedule(IDLE_S)
        self.now = 0.0
        self.asked: dict[int, tuple[ReadSettings, float, float]] = {}
        self.answered: set[int] = set()
        self.scanning: dict[int, tuple[ReadSettings, float]] = {}
        self.ending: set[int] = set()
        self.killed: set[int] = set()

    def act(self) -> None:
        for action in self.schedule.actions(self.now):
            match action:
                case Start(reader, settings):
                    self.scanning[reader] = settings, self.now
                case Order(reader):
                    settings = self.scanning[reader][0]
                    self.scanning[reader] = settings, self.now
                case End(reader):
                    self.ending.add(reader)
                case Kill(reader):
                    self.killed.add(reader)
                case Deliver(request, scan):
                    assert request not in self.answered
                    self.answered.add(request)
                    settings, asked, _ = self.asked[request]
                    assert float(scan.split()[1]) >= asked
                    assert scan.split()[0] == settings.path.encode() or not settings.path
                case Fail(request, _):
                    assert request not in self.answered
                    self.answered.add(request)

    def living(self) -> list[int]:
        return sorted(self.schedule.readers)

    @rule(settings=st.sampled_from([NVML, OTHER]), time_s=st.sampled_from([0.5, 2.0, 10.0]))
    def request(self, settings: ReadSettings, time_s: float) -> None:
        number = len(self.asked)
        self.asked[number] = settings, self.now, self.now + time_s
        self.schedule.request(number, settings, self.now + time_s, self.now)
        self.act()

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 3.0, 20.0]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (next_time := self.schedule.next_time()) is not None and next_time <= until:
            self.now = max(next_time, self.now + 0.001)
            self.act()
        self.now = max(until, self.now)
        self.act()

    @precondition(lambda self: self.schedule.readers)
    @rule(data=st.data(), stays=st.booleans())
    def scanned(self, data: st.DataObject, stays: bool) -> None:
        reader = data.draw(st.sampled_from(self.living()))
        settings, began = self.scanning[reader]
        scan = f"{settings.path or '-'} {began}".encode()
        self.schedule.scanned(reader, scan, self.now, stays=stays)
        self.act()

    @precondition(lambda self: self.schedule.readers)
    @rule(data=st.data())
    def found_stale(self, data: st.DataObject) -> None:
        self.schedule.found_stale(data.draw(st.sampled_from(self.living())), self.now)
        self.act()

    @precondition(lambda self: self.schedule.readers)
    @rule(data=st.data())
    def ended(self, data: st.DataObject) -> None:
        self.schedule.ended(data.draw(st.sampled_from(self.living())), "ended")
        self.act()

    @precondition(lambda self: self.asked.keys() - self.answered)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.asked.keys() - self.answered)))
        self.answered.add(number)
        self.schedule.drop(number)
        self.act()

    @rule()
    def release(self) -> None:
        self.schedule.release(self.now)
        self.act()

    @invariant()
    def nobody_waits_beyond_the_deadline(self) -> None:
        late = {number for number, (_, _, deadline) in self.asked.items() if deadline <= self.now}
        assert late <= self.answered

    @invariant()
    def readers_are_few(self) -> None:
        assert len(self.schedule.readers) <= 2 * MAX_BUSY_READERS + MAX_STUCK_READERS


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.pytestmark = pytest.mark.slow
