"""An agent of a node with users, who mean it harm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts.account_files import write_accounts
from hosts.running_agent import RunningAgent

# Who is let in is counted, however long a test takes.
NOBODY_IS_CUT_OFF = """
from canhazgpu.agent.listener import connections
connections.REQUEST_WAIT_S = 600.0
"""
LIMITS = {"max_hooks": 8, "max_requests": 8, "max_requests_per_user": 3}


@pytest.fixture
def limits() -> dict[str, int]:
    """The places of the agent: few."""
    return LIMITS


@pytest.fixture
def agent(tmp_path: Path, limits: dict[str, int]) -> Iterator[RunningAgent]:
    """An agent whose socket every user can reach."""
    if os.geteuid() != 0:
        pytest.skip("only root may run an agent")
    changes = write_accounts(tmp_path / "etc") + NOBODY_IS_CUT_OFF
    with RunningAgent(tmp_path / "agent", changes=changes, agent=limits) as running:
        yield running
        assert running.process.poll() is None
        running.wait_until_idle()
        assert running.status()["faults"] == []
