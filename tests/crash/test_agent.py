"""A process of the agent that dies or fails at any of its steps leaves one of two states."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Thread

import pytest
from crashes.crash_agent import CrashAgent, make_crash_agent
from crashes.crash_page import NO_CRASH, Crash
from crashes.exploration import Ended, Scenario, explore
from crashes.node_image import NodeState
from polling import poll_until

from canhazgpu.errors import AgentError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Deed = Callable[[CrashAgent], object]
SAMPLE = {"kills": 2}
GPUS = 4
JOBS = ("12",)
OF_AGENT = ("listener", "start")
"""Roles of the agent's own process."""
REFUSED = NodeState(files=("jobs/12.json",))
"""Without a scan nothing is granted: the job goes back, and its epilog ends the record."""


@dataclass(frozen=True)
class Operation:
    """What a process of the `role` does for it; `prepare` comes before.

    `before` comes each time before it, and `recover` after it, or without it. `jobs` are what Slurm
    has on the node afterwards.
    """

    name: str
    role: str
    prepare: list[Deed]
    work: Deed
    jobs: tuple[str, ...] = ()
    before: tuple[Deed, ...] = ()
    recover: tuple[Deed, ...] = ()


def hook(name: str) -> Deed:
    return lambda node: node.hook(name)


def command(*arguments: str) -> Deed:
    return lambda node: node.command(*arguments)


def agent_starts(node: CrashAgent) -> None:
    node.agent.process.kill()
    node.agent.start_again()


def agent_is_executed_anew(node: CrashAgent) -> None:
    """It becomes its program once more, or dies on the way."""
    process, before = node.agent.process, outcome(node)
    process.send_signal(signal.SIGHUP)
    poll_until(lambda: process.poll() is not None or outcome(node) not in (before, None))


def outcome(node: CrashAgent) -> tuple[object, object] | None:
    """How often it has become another program, and when it could not; None without an answer."""
    try:
        found = node.agent.status()
    except AgentError:
        return None
    return found["executions"], found["upgrade_fault"] and found["upgrade_fault"]["at"]


def waits_for_gpus_of_a_job(node: CrashAgent) -> None:
    """Somebody waits for more than is free, and the job ends."""
    words = ("reserve", "--gpus", "3", "--duration", "1h", "--wait", "60s")
    waiter = Thread(target=node.command, args=words)
    waiter.start()
    poll_until(lambda: node.state().queue or not waiter.is_alive())
    node.hook("epilog")
    waiter.join()


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
    Operation("watcher, a wait", "watcher", [hook("prolog")], waits_for_gpus_of_a_job),
    Operation("task of the watcher, a wait", "task", [hook("prolog")], waits_for_gpus_of_a_job),
    Operation(
        "task of the watcher, journal delivery",
        "task",
        [],
        CrashAgent.store_is_back,
        JOBS,
        (CrashAgent.store_is_away, hook("prolog")),
        (CrashAgent.store_is_back,),
    ),
    Operation(
        "listener, job start", "listener", [], hook("prolog"), JOBS, recover=(CrashAgent.runs,)
    ),
    Operation(
        "listener, job end",
        "listener",
        [hook("prolog")],
        hook("epilog"),
        recover=(CrashAgent.runs,),
    ),
    Operation(
        "listener, executed anew",
        "listener",
        [hook("prolog")],
        agent_is_executed_anew,
        JOBS,
        recover=(CrashAgent.runs,),
    ),
    Operation("check of a program", "check", [hook("prolog")], agent_is_executed_anew, JOBS),
    Operation(
        "agent start after it was executed anew",
        "start",
        [hook("prolog")],
        agent_is_executed_anew,
        JOBS,
        recover=(CrashAgent.runs,),
    ),
    Operation(
        "agent start", "start", [hook("prolog")], agent_starts, JOBS, recover=(CrashAgent.runs,)
    ),
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
    assert found.steps > 0
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
        for deed in operation.before:
            deed(node)
        if crash is not None:
            node.page.set(operation.role, crash)
            operation.work(node)
        in_work = node.page.taken_steps(), node.page.is_hit
        if operation.role in OF_AGENT:
            # It goes on after the work.
            node.page.set("")
            if in_work[1]:
                node.agent.process.wait()
        for deed in operation.recover:
            deed(node)
        node.slurm_has(*operation.jobs)
        node.hook("health_check")
        state = node.settled()
        steps, is_hit = node.page.taken_steps(), node.page.is_hit
        if operation.role in OF_AGENT:
            steps, is_hit = in_work
        faults = state.faults() + next_is_served(node, len(state.held))
        release_all(node)
        return Ended(crash or NO_CRASH, steps, is_hit, state, faults)

    allowed = (REFUSED,) if operation.role in ("scanner", "reader") else ()
    return Scenario(operation.name, run, allowed)


def next_is_served(node: CrashAgent, held: int) -> list[str]:
    """Who asks next gets all GPUs that nobody holds."""
    free = GPUS - held
    if not free:
        return []
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
