"""Many questions at once, some of which are never answered."""

from __future__ import annotations

import threading
import time

import pytest

from canhazgpu.probe.processes.parallel_lookup import MAX_THREADS, ParallelLookup

LONG_S = 30.0


def test_every_key_is_asked_once_and_answered() -> None:
    asked: list[int] = []

    def double(key: int) -> int:
        asked.append(key)
        return key * 2

    answers = ParallelLookup(double, [3, 1, 3, 2]).wait_until(time.monotonic() + LONG_S)
    assert answers == {1: 2, 2: 4, 3: 6}
    assert sorted(asked) == [1, 2, 3]


def test_without_questions_nobody_waits_and_no_thread_starts() -> None:
    before = threading.active_count()
    gathering: ParallelLookup[int, int] = ParallelLookup(lambda key: key, [])
    assert threading.active_count() == before
    assert gathering.wait_until(time.monotonic() + LONG_S) == {}


def test_slow_ones_are_asked_at_the_same_time() -> None:
    # Nobody passes the barrier before all are there.
    together = threading.Barrier(20)
    answers = ParallelLookup(lambda _key: together.wait(LONG_S) >= 0, range(20)).wait_until(
        time.monotonic() + LONG_S
    )
    assert answers == dict.fromkeys(range(20), True)


def test_those_that_hang_hold_no_other_up() -> None:
    never = threading.Event()
    answered = threading.Semaphore(0)

    def ask(key: int) -> int:
        if key < 30:
            never.wait(LONG_S)
        else:
            answered.release()
        return key

    gathering = ParallelLookup(ask, range(50))
    answers = gathering.wait_until(time.monotonic() + 0.5)
    try:
        assert answers == {key: key for key in range(30, 50)}
    finally:
        never.set()


def test_no_more_threads_than_that() -> None:
    never = threading.Event()
    running = []

    def ask(key: int) -> None:
        running.append(key)
        never.wait(LONG_S)

    try:
        ParallelLookup(ask, range(1000)).wait_until(time.monotonic() + 0.5)
        assert len(running) == MAX_THREADS
    finally:
        never.set()


def test_a_deadline_in_the_past_returns_at_once_with_what_is_there() -> None:
    never = threading.Event()
    gathering = ParallelLookup(lambda _key: never.wait(LONG_S), [1])
    try:
        assert gathering.wait_until(time.monotonic() - 1) == {}
    finally:
        never.set()


def test_no_room_for_threads_leaves_questions_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert ParallelLookup(lambda key: key, [1, 2]).wait_until(time.monotonic() + 0.05) == {}
