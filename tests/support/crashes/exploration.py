"""Run an operation again and again, each time with a crash at another of its steps."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from crashes.crash_page import NO_CRASH, Action, Crash, Kind, Step
from crashes.node_image import NodeState

POINTS_VARIABLE = "CRASH_POINTS"
SEED_VARIABLE = "CRASH_SEED"
ERRORS = {
    "disk full": (Action.FAIL_ALWAYS, errno.ENOSPC, Kind.FILES),
    "write errors": (Action.FAIL_ONCE, errno.EIO, Kind.FILES),
    "connections lost": (Action.FAIL_ONCE, errno.ECONNRESET, Kind.SOCKETS),
    "no processes": (Action.FAIL_ALWAYS, errno.EAGAIN, Kind.PROCESSES),
}
"""What fails; at a step of another kind nothing would."""
SIGNALS = {"kills": Action.KILL, "stops": Action.STOP}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run with a crash ended, and what the node was after the recovery.

    `steps` are those that the process began; `faults` are what was found wrong.
    """

    crash: Crash
    steps: list[Step]
    is_hit: bool
    state: NodeState
    faults: list[str]


@dataclass(frozen=True, slots=True)
class Scenario:
    """An operation and what follows its crash.

    `run` makes all as it was before, carries the operation out with the crash, and recovers;
    with None it only recovers. `allowed` may name states beyond those of the operation that never
    began and of the one that was done.
    """

    name: str
    run: Callable[[Crash | None], Ended]
    allowed: tuple[NodeState, ...] = ()


@dataclass
class Explored:
    """What came of all points that were tried."""

    name: str
    steps: int = 0
    tried: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        tried = ", ".join(f"{count} {what}" for what, count in self.tried.items())
        return f"{self.name}: {self.steps} steps; {tried}; {len(self.faults)} broke"


def explore(scenario: Scenario, actions: Mapping[str, int]) -> Explored:
    """Try so many points of each kind of crash.

    All with CRASH_POINTS=all; with CRASH_POINTS=2/5 the second of five portions of all.
    """
    found = Explored(scenario.name)
    never, done = scenario.run(None), scenario.run(NO_CRASH)
    found.faults += [f"without a crash: {one}" for one in (*never.faults, *done.faults)]
    found.steps = len(done.steps)
    allowed = [never.state, done.state, *scenario.allowed]
    chosen = random.Random(f"{os.environ.get(SEED_VARIABLE, '')} {scenario.name}")
    for what, count in actions.items():
        points = list(_points(what, done.steps))
        wanted = os.environ.get(POINTS_VARIABLE, "")
        if "/" in wanted:
            portion, portions = map(int, wanted.split("/"))
            points = points[portion - 1 :: portions]
        elif wanted != "all":
            points = sorted(chosen.sample(points, min(count, len(points))), key=lambda p: p.step)
        found.tried[what] = len(points)
        for crash in points:
            found.faults += _faults(scenario.run(crash), allowed)
    return found


def _points(what: str, steps: list[Step]) -> Iterator[Crash]:
    for number, step in enumerate(steps, 1):
        if what in SIGNALS:
            yield Crash(SIGNALS[what], number)
            continue
        action, error, kind = ERRORS[what]
        if step.kind == kind:
            yield Crash(action, number, error, kind)


def _faults(ended: Ended, allowed: list[NodeState]) -> Iterator[str]:
    place = ended.crash.step
    name = ended.steps[place - 1].name if 0 < place <= len(ended.steps) else "not reached"
    where = f"{ended.crash} ({name})"
    for one in ended.faults:
        yield f"{where}: {one}"
    if ended.state not in allowed:
        yield f"{where}: {' / '.join(map(ended.state.differences, allowed))}"
