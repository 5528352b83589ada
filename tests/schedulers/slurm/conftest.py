"""Nodes for the tests of hooks: with an agent and without one."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts.hook_node import HookNode, make_hook_node
from hosts.running_agent import RunningAgent
from simulated_driver import install_driver

import fake_nvml
from demo_cluster import ensure_users, remove_users

WITH_AGENT = ("job_start", "job_end", "node_check", "hook")
"""The folders whose tests are run with an agent too."""
IN_OWN_PROCESS = (
    "test_agent_at_its_limits",
    "test_imports",
    "test_process_races",
    "test_starved_hooks",
    "test_syslog",
)
"""Their tests change what a hook's own process does, and ask no agent."""
OWN_AGENT = ("test_stopped_handlers",)
"""Their tests have an agent of their own, and change what its handlers do."""
WITH_AGENT_ALONE = ("test_agent_at_its_limits",)
USERS = (f"chgann{os.getpid()}", f"chgbob{os.getpid()}")


@pytest.fixture(scope="session")
def library() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="chg-hooks-"))
    yield install_driver(directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def shared_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """One agent for the nodes of all tests: a request brings the configuration of its node."""
    if os.geteuid() != 0:
        pytest.skip("only root may run an agent")
    with RunningAgent(tmp_path_factory.mktemp("agent")) as agent:
        yield agent


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of hooks with an agent and without one."""
    path = metafunc.definition.path
    if "way" in metafunc.fixturenames and path.stem not in OWN_AGENT:
        has_agent = path.parent.name in WITH_AGENT and path.stem not in IN_OWN_PROCESS
        ways = ["direct", "agent"] if has_agent else ["direct"]
        if path.stem in WITH_AGENT_ALONE:
            ways = ["agent"]
        metafunc.parametrize("way", ways, indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest) -> RunningAgent | None:
    """The agent that hooks ask, None where they do their work themselves."""
    if request.param == "direct":
        return None
    agent = request.getfixturevalue("shared_agent")
    assert isinstance(agent, RunningAgent)
    return agent


def check_answered(node: HookNode) -> None:
    """What runs by itself was answered by the agent too, and no handler imported anything."""
    if node.agent is None:
        return
    codes = [one.poll() for one in node.started]
    assert not [code for code in codes if code is not None and code >= 120]
    node.agent.wait_until_idle()
    faults = [one["text"] for one in node.agent.status()["faults"]]
    assert not [one for one in faults if "imported" in one or "internal error" in one]


@pytest.fixture(params=["slurm", "canhazgpu"])
def node(
    request: pytest.FixtureRequest, library: Path, tmp_path: Path, way: RunningAgent | None
) -> Iterator[HookNode]:
    """A node, once with Slurm's choice of devices and once with ours."""
    if way is not None:
        # Beside its own state: the agent has no variable of the simulated driver.
        library = install_driver(tmp_path / "driver")
    state = fake_nvml.FakeState(library.parent / "state" if way else tmp_path / "nvml")
    with make_hook_node(tmp_path, library, request.param, state, way) as made:
        yield made
        check_answered(made)


@pytest.fixture(scope="session")
def people() -> Iterator[tuple[str, str]]:
    """Two Unix users of this run: whose the jobs are, and who is in their way."""
    if os.geteuid() != 0:
        pytest.skip("only root can run processes of several users")
    created = ensure_users(list(USERS))
    yield USERS
    remove_users(created)


@pytest.fixture
def ann(people: tuple[str, str]) -> dict[str, str]:
    """The variables of a job of the first of them."""
    return {"SLURM_JOB_USER": people[0], "SLURM_JOB_UID": str(pwd.getpwnam(people[0]).pw_uid)}
