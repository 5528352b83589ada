"""Duties are carried out when they are due, and for as long as there are any."""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from dataclasses import dataclass, field

from canhazgpu.agent.watcher.duty import carry_out


@dataclass
class Planned:
    """Is done after so many steps; `pipe` is the read end that it waits for."""

    steps: int
    wait: float | None = 0.0
    pipe: int | None = None
    seen: list[set[int]] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        return len(self.seen) >= self.steps

    def descriptors(self) -> Iterator[int]:
        if self.pipe is not None:
            yield self.pipe

    def wait_s(self) -> float | None:
        return self.wait

    def step(self, ready: Set[int]) -> None:
        self.seen.append(set(ready))


def test_it_ends_with_the_last_duty() -> None:
    first, second = Planned(1), Planned(3)
    carry_out([first, second])
    assert (len(first.seen), len(second.seen)) == (3, 3)


def test_without_anything_to_do_it_waits_for_nothing() -> None:
    duty = Planned(1, wait=None)
    carry_out([duty])
    assert duty.seen == [set()]


def test_an_event_ends_the_wait_and_is_told() -> None:
    read, write = os.pipe()
    duty = Planned(2, wait=None, pipe=read)
    os.write(write, b"x")
    carry_out([duty])
    assert duty.seen == [set(), {read}]
    os.close(read)
    os.close(write)
