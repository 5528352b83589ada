"""An outage of the store is remembered for a short time, and tried again by one process alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from canhazgpu.ledger.local.outage import StoreOutage

LIFE_S = 15.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def outage(directory: Path, clock: Clock) -> StoreOutage:
    """What another process of the node knows."""
    return StoreOutage(directory, LIFE_S, clock)


def test_without_an_outage_everybody_asks(tmp_path: Path, clock: Clock) -> None:
    assert outage(tmp_path, clock).known_reason() == ""
    assert outage(tmp_path, clock).known_reason() == ""
    assert not outage(tmp_path, clock).clear()
    assert list(tmp_path.iterdir()) == []


def test_while_it_is_fresh_nobody_asks(tmp_path: Path, clock: Clock) -> None:
    outage(tmp_path, clock).note("refused")
    clock.now += LIFE_S - 0.1
    assert outage(tmp_path, clock).known_reason() == "refused"


def test_when_it_is_old_one_asks_and_the_others_do_not_wait(tmp_path: Path, clock: Clock) -> None:
    outage(tmp_path, clock).note("refused")
    clock.now += LIFE_S
    first, second = outage(tmp_path, clock), outage(tmp_path, clock)
    assert first.known_reason() == ""
    assert second.known_reason() == "refused"
    first.note("refused again")
    assert outage(tmp_path, clock).known_reason() == "refused again"
    clock.now += LIFE_S
    # Whoever asked has told the outcome: now another one may.
    assert second.known_reason() == ""


def test_its_end_is_known_to_all(tmp_path: Path, clock: Clock) -> None:
    outage(tmp_path, clock).note("refused")
    clock.now += LIFE_S
    trying = outage(tmp_path, clock)
    assert trying.known_reason() == ""
    assert trying.clear()
    assert outage(tmp_path, clock).known_reason() == ""


def test_a_process_that_died_while_it_asked_blocks_nobody(tmp_path: Path, clock: Clock) -> None:
    outage(tmp_path, clock).note("refused")
    clock.now += LIFE_S
    child = os.fork()
    if child == 0:
        os._exit(len(outage(tmp_path, clock).known_reason()))
    assert os.waitpid(child, 0)[1] == 0
    assert outage(tmp_path, clock).known_reason() == ""


def test_who_waits_heeds_what_others_find_meanwhile(tmp_path: Path, clock: Clock) -> None:
    outage(tmp_path, clock).note("long ago")
    clock.now += LIFE_S
    waiting = outage(tmp_path, clock)
    assert waiting.known_reason() == ""
    clock.now += 1
    assert waiting.reason_noted_meanwhile() == ""
    other = outage(tmp_path, clock)
    other.note("no answer")
    clock.now += 0.1
    assert waiting.reason_noted_meanwhile() == "no answer"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"why": "x", "at": "soon"}', "\x00"])
def test_garbage_is_as_old_as_can_be(tmp_path: Path, clock: Clock, text: str) -> None:
    (tmp_path / "store-outage").write_text(text)
    assert outage(tmp_path, clock).known_reason() == ""


def test_one_of_another_boot_counts_for_nothing(tmp_path: Path, clock: Clock) -> None:
    outage(tmp_path, clock).note("refused")
    clock.now = 5.0
    assert outage(tmp_path, clock).known_reason() == ""


def test_a_node_that_cannot_keep_it_asks_every_time(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "run"
    outage(place, clock).note("refused")
    assert outage(place, clock).known_reason() == ""
    assert not outage(place, clock).clear()
