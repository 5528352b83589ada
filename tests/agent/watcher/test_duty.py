"""Duties are carried out when they are due, and for as long as there are any."""

from __future__ import annotations

from dataclasses import dataclass, field

from canhazgpu.agent.watcher.duty import carry_out


@dataclass
class Planned:
    """Asks to be run again after each of these times."""

    after_s: list[float]
    runs: int = 0

    def run(self) -> float | None:
        self.runs += 1
        return self.after_s.pop(0) if self.after_s else None


@dataclass
class Clock:
    waited_s: list[float] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        self.waited_s.append(seconds)


def test_it_waits_for_what_is_due_first_and_ends_with_the_last() -> None:
    clock, first, second = Clock(), Planned([5.0]), Planned([1.0, 2.0])
    carry_out([first, second], clock.wait)
    assert clock.waited_s == [1.0, 2.0]
    assert (first.runs, second.runs) == (3, 3)


def test_without_anything_to_do_it_waits_for_nothing() -> None:
    clock = Clock()
    carry_out([Planned([]), Planned([])], clock.wait)
    assert clock.waited_s == []
