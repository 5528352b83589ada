"""The agent of a host without GPUs: it answers people, and nothing else."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts.running_agent import RunningAgent
from polling import poll_until

from canhazgpu.agent.client import call
from canhazgpu.agent.socket_files import agent_directory
from canhazgpu.agent.wire import interface
from canhazgpu.errors import AgentError

pytestmark = pytest.mark.slow


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RunningAgent]:
    if os.geteuid() != 0:
        pytest.skip("only root may run an agent")
    with RunningAgent(tmp_path, "login1", agent={"role": "reader", "orders": "await"}) as running:
        yield running


def test_it_has_no_socket_for_hooks_and_no_process_beside_it(agent: RunningAgent) -> None:
    names = {one.name for one in agent_directory(agent.state_dir).iterdir()}

    assert names == {"agent.sock", ".lock"}
    assert agent.status()["role"] == "reader"
    # The handlers that answered these calls end; nothing else is there.
    poll_until(lambda: agent.all_children() == [])
    assert agent.status()["faults"] == []


def test_it_checks_no_job(agent: RunningAgent) -> None:
    with pytest.raises(AgentError):
        call(agent.state_dir, interface.CHECK_JOB)

    assert agent.status()["faults"] == []


def test_it_ends_as_any_agent(agent: RunningAgent) -> None:
    agent.process.send_signal(signal.SIGTERM)

    assert agent.process.wait(60) == 0
    assert not agent.people_socket.exists()


def test_its_status_says_what_it_is(agent: RunningAgent) -> None:
    from forking_python import own_interpreter

    environ = {"CANHAZGPU_CONFIG": str(agent.environ["CANHAZGPU_CONFIG"])}
    program = ["-c", "from canhazgpu.cli.main import main; main()", "agent", "status"]

    done = own_interpreter().run([*program, "--node", "login1"], environ, timeout_s=60)

    assert done.stdout.startswith("reader agent of login1: ")
