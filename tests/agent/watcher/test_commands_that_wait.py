"""`run` and `reserve` through the agent, from the words to the release, whoever dies in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from hosts.agent_node import PROGRAM, AgentNode, make_agent_node
from hosts.people_runs import ALICE, BOB, devices, end, holders, queue, start_run
from hosts.running_agent import RunningAgent, is_alive
from polling import poll_until
from process_details import open_files

from canhazgpu.ledger.local.runs.run_files import RunFiles

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may run an agent"),
]
GPUS = 4


@pytest.fixture
def node() -> Iterator[AgentNode]:
    with make_agent_node(GPUS) as made:
        yield made
        poll_until(lambda: made.agent.children() == [])
        assert made.agent.status()["faults"] == []


def runs(node: AgentNode) -> set[str]:
    return RunFiles(node.agent.state_dir).owners()


def watcher(node: AgentNode) -> int:
    """The pid of the watcher: it looks at the directory of the runs."""
    return poll_until(lambda: next((pid for pid in node.agent.children() if watches_files(pid)), 0))


def watches_files(pid: int) -> bool:
    return "anon_inode:inotify" in open_files(pid)


def test_a_run_has_its_gpus_and_no_process_beside_it(node: AgentNode) -> None:
    run = start_run(node, "--gpus", "2")
    mine = devices(run)
    assert len(mine) == 2
    assert holders(node).keys() == mine
    assert len(runs(node)) == 1
    assert watcher(node)
    end(run)
    poll_until(lambda: holders(node) == {} and not runs(node))


def test_it_ends_with_the_status_of_its_command(node: AgentNode) -> None:
    done = node.run("run", "--gpus", "1", "--", "/bin/sh", "-c", "exit 7", user=ALICE)
    assert (done.returncode, done.stderr) == (7, "")
    poll_until(lambda: holders(node) == {})


def test_who_waits_is_told_and_gets_what_becomes_free(node: AgentNode) -> None:
    first = start_run(node, "--gpus", str(GPUS))
    devices(first)
    second = start_run(node, "--gpus", "1", user=BOB)
    assert second.stderr is not None
    assert second.stderr.readline().startswith(
        "canhazgpu: waiting for 1 GPU on n1: next in the queue"
    )
    assert queue(node) == ["news"]
    end(first)
    mine = devices(second)
    assert holders(node).keys() == mine
    end(second)
    poll_until(lambda: holders(node) == {})


def test_a_run_in_a_run_has_gpus_of_its_own(node: AgentNode) -> None:
    """It is the same process, which the second program takes over from the first."""
    run = start_run(node, "--gpus", "1", "--", PROGRAM, "run", "--gpus", "2")
    assert len(devices(run)) == 2
    assert len(set(holders(node).values())) == 2
    assert len(holders(node)) == 3
    end(run)
    poll_until(lambda: holders(node) == {} and not runs(node))


def test_a_note_that_is_no_text_keeps_nobody_waiting(node: AgentNode) -> None:
    first = start_run(node, "--gpus", str(GPUS))
    devices(first)
    second = start_run(node, "--gpus", "1", "--note", os.fsdecode(b"\xff"), user=BOB)
    poll_until(lambda: queue(node) == ["news"])
    third = start_run(node, "--gpus", "1")
    poll_until(lambda: queue(node) == ["news", "games"])
    end(first)
    assert len(devices(second)) == len(devices(third)) == 1
    end(second, third)
    poll_until(lambda: holders(node) == {} and not runs(node))


def test_reserve_waits_too_and_says_what_it_always_says(node: AgentNode) -> None:
    first = start_run(node, "--gpus", str(GPUS))
    devices(first)
    waiting = subprocess.Popen(
        [PROGRAM, "reserve", "--gpus", "1", "--duration", "1h", "--json"],
        env=node.env(),
        user=BOB,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
    )
    poll_until(lambda: queue(node) == ["news"])
    end(first)
    told = json.loads(waiting.communicate(timeout=60)[0])
    assert waiting.returncode == 0
    assert holders(node) == {told["gpus"][0]["uuid"]: told["owner"]}
    assert told["duration_s"] == 3600.0
    assert node.run("release", user=BOB).returncode == 0


def test_the_time_of_a_wait_ends_as_without_an_agent(node: AgentNode) -> None:
    first = start_run(node, "--gpus", str(GPUS))
    devices(first)
    done = node.run("run", "--gpus", "1", "--wait", "1s", "--", "true", user=BOB)
    assert done.returncode == 75
    assert "Not enough GPUs available. Requested: 1, Available: 0" in done.stderr
    poll_until(lambda: queue(node) == [])
    end(first)


def test_who_interrupts_a_wait_leaves_the_queue(node: AgentNode) -> None:
    first = start_run(node, "--gpus", str(GPUS))
    devices(first)
    second = start_run(node, "--gpus", "1", user=BOB)
    poll_until(lambda: queue(node) == ["news"])
    second.send_signal(signal.SIGINT)
    assert second.wait(60) == -signal.SIGINT
    poll_until(lambda: queue(node) == [])
    end(first, second)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_watcher_that_dies_costs_nobody_anything(node: AgentNode, number: signal.Signals) -> None:
    first = start_run(node, "--gpus", str(GPUS))
    devices(first)
    second = start_run(node, "--gpus", "1", user=BOB)
    poll_until(lambda: queue(node) == ["news"])
    before = watcher(node)
    os.kill(before, number)
    poll_until(lambda: not is_alive(before))
    end(first)
    assert len(devices(second)) == 1
    end(second)
    poll_until(lambda: holders(node) == {} and not runs(node))
    poll_until(lambda: node.agent.children() == [])
    # That it died is a fault, and the only one.
    texts = [one["text"] for one in node.agent.status()["faults"]]
    assert all(f"the watcher (PID {before}) ended" in text for text in texts)
    forget_faults(node)


def forget_faults(node: AgentNode) -> None:
    """Have the next look find none: the agent counts them for as long as it lives."""
    node.agent.status = lambda: {"faults": []}  # type: ignore[method-assign]


def test_many_short_runs_of_two_users_all_get_their_turn(node: AgentNode) -> None:
    started = [
        start_run(node, "--gpus", "1", user=(ALICE, BOB)[number % 2], seconds=0.05)
        for number in range(16)
    ]
    for one in started:
        _, errors = one.communicate(timeout=120)
        assert one.returncode == 0, errors
    poll_until(lambda: holders(node) == {} and not runs(node))


def test_a_run_is_ended_at_its_time_and_told_so_first(node: AgentNode) -> None:
    errors = node.here.directory / "errors"
    errors.touch()
    os.chown(errors, ALICE, ALICE)
    with errors.open("a") as stream:
        run = start_run(node, "--gpus", "1", "--timeout", "2s", stderr=stream)
    devices(run)
    assert run.wait(60) == -signal.SIGTERM
    assert errors.read_text() == "canhazgpu: the run's time of 2 s is over; ending it\n"
    poll_until(lambda: holders(node) == {})
    end(run)


def test_an_agent_that_dies_costs_nobody_anything() -> None:
    """The run goes on, and who waits asks the next agent and has its turn."""
    with make_agent_node(GPUS) as node:
        first = start_run(node, "--gpus", str(GPUS))
        devices(first)
        second = start_run(node, "--gpus", "1", user=BOB)
        poll_until(lambda: queue(node) == ["news"])
        node.agent.process.kill()
        node.agent.process.wait()
        config = {
            "store": {"url": node.here.redis.url},
            "validation": {"nvml_library": node.here.library},
        }
        with RunningAgent(node.here.directory / "agent", **config) as after:
            assert first.poll() is None
            end(first)
            assert len(devices(second)) == 1
            end(second)
            poll_until(lambda: holders(node) == {} and not runs(node))
            assert after.status()["faults"] == []
