"""A directory for a node whose agent watches something."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def node_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that every user may search; only root may run an agent."""
    if os.geteuid() != 0:
        pytest.skip("only root may run an agent")
    directory = tmp_path_factory.mktemp("node")
    directory.chmod(0o755)
    return directory
