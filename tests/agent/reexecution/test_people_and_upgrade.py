"""What people have under way while the agent becomes another release."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hosts.agent_node import PROGRAM, AgentNode, make_agent_node
from hosts.changing_release import ChangingRelease, wait_for_release
from hosts.people_runs import ALICE, BOB, devices, end, holders, queue, start_run
from hosts.running_agent import is_alive
from polling import poll_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may run an agent"),
]
GPUS = 2


@pytest.fixture
def release(tmp_path: Path) -> ChangingRelease:
    return ChangingRelease(tmp_path / "release")


@pytest.fixture
def node(release: ChangingRelease) -> Iterator[AgentNode]:
    with make_agent_node(GPUS, changes=release.changes) as made:
        yield made
        poll_until(lambda: made.agent.children() == [])
        assert made.agent.status()["faults"] == []


@contextmanager
def started(node: AgentNode, *words: str, user: int = ALICE) -> Iterator[subprocess.Popen[str]]:
    """A `run` that is killed in the end."""
    run = start_run(node, *words, user=user)
    try:
        yield run
    finally:
        end(run)


def test_a_run_goes_on_and_its_gpus_are_released_when_it_ends(
    node: AgentNode, release: ChangingRelease
) -> None:
    with started(node, "--gpus", "2") as run:
        assert len(devices(run)) == GPUS
        (owner,) = set(holders(node).values())
        watcher = poll_until(lambda: min(node.agent.children(), default=0))

        release.install("2.0")
        wait_for_release(node.agent, "2.0")

        assert run.poll() is None
        assert [*holders(node).values()] == [owner] * GPUS
        # Another watcher, of this program, has taken it over.
        poll_until(lambda: not is_alive(watcher) and node.agent.children())
    poll_until(lambda: holders(node) == {})


def test_who_waits_gets_the_gpus_after_it(node: AgentNode, release: ChangingRelease) -> None:
    with started(node, "--gpus", "2") as first:
        devices(first)
        with started(node, "--gpus", "1", user=BOB) as second:
            poll_until(lambda: len(queue(node)) == 1)

            release.install("2.0")
            wait_for_release(node.agent, "2.0")

            assert second.poll() is None
            first.kill()
            assert len(devices(second)) == 1
            assert len(holders(node)) == 1
    poll_until(lambda: holders(node) == {})


def test_a_reservation_and_a_command_under_way_are_not_disturbed(
    node: AgentNode, release: ChangingRelease
) -> None:
    done = node.run("reserve", "--gpus", "1", "--duration", "1h", user=ALICE)
    assert done.returncode == 0, done.stderr
    follower = subprocess.Popen(
        [PROGRAM, "events", "--follow"],
        env=node.env(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        poll_until(node.agent.children)
        release.install("2.0")
        wait_for_release(node.agent, "2.0")

        assert follower.poll() is None
        done = node.run("release", user=ALICE)
        assert done.returncode == 0, done.stderr
        assert follower.stdout is not None
        # It sees what comes after it.
        while "release" not in follower.stdout.readline():
            assert follower.poll() is None
    finally:
        follower.kill()
        follower.communicate()
    assert holders(node) == {}


def test_a_command_that_comes_meanwhile_waits(node: AgentNode, release: ChangingRelease) -> None:
    release.install("2.0")
    asked = 0
    while node.agent.status()["release"] != "2.0" or not asked:
        done = node.run("events", user=ALICE)
        assert (done.returncode, done.stderr) == (0, "")
        asked += 1
