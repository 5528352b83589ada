"""Which agents ended by themselves: the processes are fakes, the decision is not."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from canhazgpu_soak.agents import AgentSupervisor
from canhazgpu_soak.cluster import SoakCluster
from canhazgpu_soak.faults.node_faults import FILLER
from demo_cluster import StartError

NODE = "n1"


class Node:
    """A cluster of one node, whose agent has a new pid at each start."""

    def __init__(self, directory: Path) -> None:
        self.nodes = (NODE,)
        self.supervision = {NODE: threading.Lock()}
        self.slurm = SimpleNamespace(start_agents=self.start, log_end=lambda name: f"log of {name}")
        self.directory = directory
        self.pid = 0
        self.starts = 0
        self.starts_fail = False
        self.why = "it has ended"
        self.killed: set[int] = set()
        self.kill_at_start = False

    def agent_pid(self, _node: str) -> int:
        return self.pid

    def state_dir(self, _node: str) -> Path:
        return self.directory

    def start(self, _node: str) -> None:
        self.starts += 1
        if self.kill_at_start:
            self.killed.add(self.starts)
        if self.starts_fail or self.kill_at_start:
            raise StartError(self.why)
        self.pid = self.starts


class Rounds:
    """A stop event that lets the supervisor look so many times; between them `between` acts."""

    def __init__(self, *between: object) -> None:
        self._left = [lambda: None, *between]

    def wait(self, _seconds: float) -> bool:
        if not self._left:
            return True
        self._left.pop(0)()  # type: ignore[operator]
        return False


def supervised(node: Node, *between: object) -> AgentSupervisor:
    agents = AgentSupervisor(cast(SoakCluster, node), node.killed)
    agents.supervise(cast(threading.Event, Rounds(*between)))
    return agents


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def end(node: Node, *, is_killed: bool) -> None:
    if is_killed:
        node.killed.add(node.pid)
    node.pid = 0


@pytest.mark.parametrize("is_killed", [True, False])
def test_an_agent_that_no_fault_killed_ended_by_itself(node: Node, is_killed: bool) -> None:
    agents = supervised(node, lambda: None, lambda: end(node, is_killed=is_killed))
    assert node.starts == 2
    assert [one.text for one in agents.ended_by_themselves] == (
        [] if is_killed else ["n1: log of agent-n1"]
    )


def test_one_that_does_not_start_ended_by_itself(node: Node) -> None:
    node.starts_fail = True
    agents = supervised(node)
    assert [one.text for one in agents.ended_by_themselves] == ["n1: it has ended"]


def test_one_that_a_full_disk_keeps_from_starting_is_counted_apart(node: Node) -> None:
    (node.directory / FILLER).mkdir()
    node.starts_fail = True
    agents = supervised(node)
    assert (agents.ended_by_themselves, agents.kept_from_starting) == ([], 1)


def test_one_that_a_disk_kept_from_starting_that_has_room_again_is_counted_apart(
    node: Node,
) -> None:
    node.starts_fail = True
    node.why = "Error: cannot use the directory: No space left on device"
    agents = supervised(node)
    assert (agents.ended_by_themselves, agents.kept_from_starting) == ([], 1)


def test_one_that_is_killed_while_it_starts_is_counted_apart(node: Node) -> None:
    node.kill_at_start = True
    agents = supervised(node)
    assert (agents.ended_by_themselves, agents.kept_from_starting) == ([], 1)
