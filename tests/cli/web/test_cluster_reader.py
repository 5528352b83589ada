"""One read for all viewers: when it is made, what stays of it, who waits for it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace

import pytest
from polling import poll_until

from canhazgpu.cli.web.answer_cache import (
    MAX_ANSWERS,
    MAX_AWAITED,
    AnswerCache,
    StillReadError,
)
from canhazgpu.cli.web.cluster_state import QUICK_S, USABLE_S, ClusterReader
from canhazgpu.errors import AgentError, InputError, StoreError, UnavailableError
from canhazgpu.service.status import StatusAnswer
from canhazgpu.status.node_status import NodeStatus


@dataclass
class Source:
    """A cluster whose reads take `takes_s` by the clock, and fail with `error`."""

    now: float = 100.0
    takes_s: float = 0.0
    error: Exception | None = None
    reads: int = 0
    entered: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event | None = None

    def read(self) -> StatusAnswer:
        self.reads += 1
        self.entered.set()
        if self.goes_on is not None:
            assert self.goes_on.wait(60)
        self.now += self.takes_s
        if self.error is not None:
            raise self.error
        return StatusAnswer((NodeStatus("n1", self.now, self.now, False, None, ()),))

    def reader(self, interval_s: float = 5.0) -> ClusterReader:
        return ClusterReader(self.read, interval_s, clock=lambda: self.now)


def test_it_is_read_once_within_the_interval_whoever_asks() -> None:
    source = Source()
    reader = source.reader()
    for _ in range(50):
        reader.current()
    assert source.reads == 1
    source.now += 4.9
    reader.current()
    assert source.reads == 1
    source.now += 0.2
    assert reader.current().number == source.reads == 2


def test_a_read_that_takes_long_is_followed_by_a_longer_time_without_one() -> None:
    source = Source(takes_s=2.0)
    reader = source.reader()
    reader.current()
    assert reader.seconds_until_due() == 20.0


def test_who_comes_during_a_read_gets_the_state_before_it_and_the_first_one_waits() -> None:
    source = Source()
    reader = source.reader()
    first = reader.current()
    source.now += 6
    source.entered.clear()
    source.goes_on = threading.Event()
    thread = threading.Thread(target=reader.current)
    thread.start()
    assert source.entered.wait(60)
    assert reader.current() is first
    source.goes_on.set()
    thread.join(60)
    assert reader.last.number == 2


def test_at_the_beginning_all_wait_for_one_read() -> None:
    source = Source(goes_on=threading.Event())
    reader = source.reader()
    found = []
    threads = [threading.Thread(target=lambda: found.append(reader.current())) for _ in range(16)]
    for thread in threads:
        thread.start()
    assert source.entered.wait(60)
    assert source.goes_on is not None
    source.goes_on.set()
    for thread in threads:
        thread.join(60)
    assert source.reads == 1
    assert [one.snapshot is not None for one in found] == [True] * 16


def test_nobody_waits_for_a_read_that_takes_long() -> None:
    source = Source()
    reader = source.reader()

    def reads_long() -> StatusAnswer:
        began = time.thread_time()
        while time.thread_time() - began < QUICK_S:
            pass
        return source.read()

    reader.read = reads_long
    first = reader.current()
    source.now += 10 * USABLE_S
    source.goes_on = threading.Event()
    # However old the state is; what is read meanwhile is read once.
    assert reader.at_once() is first
    assert source.entered.wait(60)
    assert reader.at_once() is first
    source.goes_on.set()
    poll_until(lambda: reader.last.number == 2)
    assert source.reads == 2
    assert reader.at_once() is reader.last


def test_a_read_that_takes_little_is_waited_for() -> None:
    source = Source()
    reader = source.reader()
    reader.page_wait_s = 60.0
    reader.current()
    source.now += 10 * USABLE_S
    assert reader.at_once().number == source.reads == 2


def test_nobody_waits_long_for_who_ought_to_take_little_and_is_stopped() -> None:
    source = Source()
    reader = source.reader()
    first = reader.current()
    source.now += 10 * USABLE_S
    source.goes_on = threading.Event()
    reader.page_wait_s = 0.01
    assert reader.at_once() is first
    assert reader.at_once() is first
    source.error = AgentError("it does not answer")
    source.goes_on.set()
    poll_until(lambda: reader.last.fault)
    assert source.reads == 2
    # Nor does anybody while nothing can be read.
    source.goes_on.clear()
    source.now += 10 * USABLE_S
    reader.page_wait_s = 60.0
    assert reader.at_once().snapshot is first.snapshot
    source.goes_on.set()


def test_a_failure_that_took_long_is_tried_again_soon() -> None:
    source = Source(takes_s=8.0, error=StoreError("away"))
    reader = source.reader()
    reader.current()
    assert reader.seconds_until_due() == 8.0


def test_who_looks_first_is_told_that_it_is_being_read() -> None:
    source = Source(goes_on=threading.Event())
    reader = source.reader()
    assert reader.at_once().number == 0
    assert reader.at_once().number == 0
    assert source.reads == 1
    assert source.goes_on is not None
    source.goes_on.set()
    poll_until(lambda: reader.last.number == 1)
    assert reader.at_once().snapshot is not None


def test_a_failure_leaves_the_last_snapshot_and_is_no_reason_to_ask_at_once() -> None:
    source = Source()
    reader = source.reader()
    before = reader.current().snapshot
    source.error = StoreError("the store does not answer")
    for seconds in (6.0, 0.0, 6.0):
        source.now += seconds
        state = reader.current()
        assert state.snapshot is before
        assert state.fault.startswith("the store does not answer")
    assert source.reads == 3
    source.error = None
    source.now += 2 * USABLE_S
    assert reader.current().fault == ""


def test_an_answer_without_the_store_does_not_replace_what_the_store_told() -> None:
    source = Source()
    reader = source.reader()
    before = reader.current().snapshot
    answer = source.read()
    reader.read = lambda: replace(answer, store_fault=StoreError("away"))
    source.now += 6
    assert reader.current().snapshot is before
    assert reader.last.fault


def test_answers_about_the_history_are_read_once_and_errors_are_kept_too() -> None:
    now = [0.0]
    cache: AnswerCache[int] = AnswerCache(5.0, clock=lambda: now[0])
    reads = []

    def fails() -> int:
        reads.append("fails")
        raise StoreError("away")

    for _ in range(3):
        assert cache.get("one", lambda: len(reads), 60.0).value == 0
        with pytest.raises(StoreError):
            cache.get("other", fails, 60.0)
    assert reads == ["fails"]
    now[0] = 5.1
    assert cache.get("one", lambda: len(reads), 60.0).value == 1


def test_an_answer_stays_while_whoever_knows_better_is_away_and_not_longer() -> None:
    now = [0.0]
    cache: AnswerCache[int] = AnswerCache(5.0, clock=lambda: now[0])

    def fails(error: Exception) -> int:
        now[0] += 60.0
        raise error

    first = cache.get("one", lambda: 7, 60.0)
    for error in (StoreError("away"), AgentError("stopped"), UnavailableError("too many")):
        now[0] += 6
        found = cache.get("one", lambda error=error: fails(error), 60.0)  # type: ignore[misc]
        assert (found.value, found.read_at) == (7, first.read_at)
        assert str(error) in found.fault
    # A wait of a minute is no reason to wait for ten.
    now[0] += 6
    assert cache.get("one", lambda: 8, 60.0).fault == ""
    now[0] += 6
    for _ in range(2):
        with pytest.raises(InputError):
            cache.get("one", lambda: fails(InputError("no such job")), 60.0)
        assert not cache.knows("one")


def test_nobody_waits_for_an_answer_that_takes_long_and_it_is_read_once() -> None:
    cache: AnswerCache[int] = AnswerCache(0.0, clock=lambda: 0.0)
    goes_on, reads = threading.Event(), []

    def reads_long() -> int:
        reads.append(1)
        assert goes_on.wait(60)
        return len(reads)

    for _ in range(3):
        with pytest.raises(StillReadError):
            cache.get("one", reads_long, wait_s=0.0)
    # Who is at another question does not wait for this one.
    assert cache.get("other", lambda: 9, wait_s=60.0).value == 9
    goes_on.set()
    assert cache.get("one", reads_long, wait_s=60.0).value == 1
    # Read anew, the last one is shown meanwhile.
    goes_on.clear()
    found = cache.get("one", reads_long, wait_s=0.0)
    assert (found.value, found.fault) == (1, "")
    goes_on.set()
    poll_until(lambda: cache.get("one", reads_long, wait_s=60.0).value > 1)


def test_more_than_some_questions_at_once_are_refused() -> None:
    cache: AnswerCache[int] = AnswerCache(5.0)
    cache.get("known", lambda: 7, wait_s=60.0)
    goes_on = threading.Event()
    for number in range(MAX_AWAITED):
        with pytest.raises(StillReadError):
            cache.get(number, lambda: int(goes_on.wait(60)), wait_s=0.0)
    with pytest.raises(UnavailableError, match="too many questions"):
        cache.get("one more", lambda: 1)
    assert cache.get("known", lambda: 8).value == 7
    goes_on.set()
    poll_until(lambda: not cache._awaited)
    assert cache.get("one more", lambda: 1, wait_s=60.0).value == 1


def test_an_error_that_nobody_foresaw_is_told_to_who_asks() -> None:
    cache: AnswerCache[int] = AnswerCache(5.0)
    with pytest.raises(ZeroDivisionError):
        cache.get("one", lambda: 1 // 0, wait_s=60.0)


def test_the_number_of_kept_answers_is_bounded() -> None:
    cache: AnswerCache[int] = AnswerCache(5.0)
    for number in range(3 * MAX_ANSWERS):
        cache.get(number, lambda: 1, 60.0)
    assert len(cache._kept) == MAX_ANSWERS
