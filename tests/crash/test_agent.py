"""A process of the agent that dies or fails at any of its steps leaves one of two states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from crashes.crash_agent import CrashAgent, make_crash_agent
from crashes.crash_page import NO_CRASH, Crash
from crashes.exploration import Ended, Scenario, explore
from crashes.node_image import NodeState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Deed = Callable[[CrashAgent], object]
SAMPLE = {"kills": 2}
GPUS = 4
JOBS = ("12",)
REFUSED = NodeState(files=("jobs/12.json",))
"""Without a scan nothing is granted: the job goes back, and its epilog ends the record."""


@dataclass(frozen=True)
class Operation:
    """What a process of the `role` does for it; `prepare` comes before.

    `jobs` are what Slurm has on the node afterwards.
    """

    name: str
    role: str
    prepare: list[Deed]
    work: Deed
    jobs: tuple[str, ...] = ()


def hook(name: str) -> Deed:
    return lambda node: node.hook(name)


def command(*arguments: str) -> Deed:
    return lambda node: node.command(*arguments)


RESERVE = command("reserve", "--gpus", "1", "--duration", "1h")
RUN = command("run", "--gpus", "1", "--", "true")
OPERATIONS = [
    Operation("handler, job start", "handler", [], hook("prolog"), JOBS),
    Operation("handler, job end", "handler", [hook("prolog")], hook("epilog")),
    Operation("handler, health check", "handler", [hook("prolog")], hook("health_check"), JOBS),
    Operation("handler, reserve", "handler", [], RESERVE),
    Operation("handler, extend", "handler", [RESERVE], command("extend", "--duration", "1h")),
    Operation("handler, release", "handler", [RESERVE], command("release")),
    Operation("handler, run", "handler", [], RUN),
    Operation("scanner, job start", "scanner", [], hook("prolog"), JOBS),
    Operation("reader, job start", "reader", [], hook("prolog"), JOBS),
    Operation("watcher, run end", "watcher", [], RUN),
    Operation("task of the watcher, run end", "task", [], RUN),
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashAgent]:
    with make_crash_agent(tmp_path_factory.mktemp("crash-agent")) as made:
        made.hook("health_check")
        yield made


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_any_point(node: CrashAgent, operation: Operation, figures: Callable[[str], None]) -> None:
    found = explore(prepared(node, operation), SAMPLE)
    figures(str(found))
    assert found.faults == [], "\n".join(found.faults)


def prepared(node: CrashAgent, operation: Operation) -> Scenario:
    release_all(node)
    node.slurm_has("12")
    for deed in operation.prepare:
        deed(node)
    node.settled()
    image = node.image()

    def run(crash: Crash | None) -> Ended:
        image.put_back(node.store)
        if crash is not None:
            node.page.set(operation.role, crash)
            operation.work(node)
        node.slurm_has(*operation.jobs)
        node.hook("health_check")
        state = node.settled()
        steps, is_hit = node.page.taken_steps(), node.page.is_hit
        faults = state.faults() + next_is_served(node, len(state.held))
        release_all(node)
        return Ended(crash or NO_CRASH, steps, is_hit, state, faults)

    allowed = (REFUSED,) if operation.role in ("scanner", "reader") else ()
    return Scenario(operation.name, run, allowed)


def next_is_served(node: CrashAgent, held: int) -> list[str]:
    """Who asks next gets all GPUs that nobody holds."""
    free = GPUS - held
    done = node.command("reserve", "--nonblock", "--gpus", str(free), "--duration", "2h")
    now = len(node.state().held)
    if done.returncode == 0 and now == GPUS:
        return []
    return [f"the next, who wants {free} GPUs, is told {done.stdout}{done.stderr}"]


def release_all(node: CrashAgent) -> None:
    """End the job and what people hold."""
    node.slurm_has()
    node.page.set("")
    node.hook("epilog")
    node.command("release")
    node.settled()
