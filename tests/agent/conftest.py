"""An agent of this node."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts.running_agent import RunningAgent

FEW = {"max_hooks": 8, "max_requests": 8, "max_requests_per_user": 3}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RunningAgent]:
    """An agent with few slots."""
    if os.geteuid() != 0:
        pytest.skip("only root may run an agent")
    with RunningAgent(tmp_path / "agent", agent=FEW) as running:
        yield running
