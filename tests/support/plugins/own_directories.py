"""A plugin for pytest: the tests' node keeps its files in a directory of their own.

The defaults are the machine's. What one test, or somebody's own installation, left there would
change what another test sees: a book that the marker says was lost, or an outage of the store.
Tests of the defaults give an environment without these variables.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from run_files import run_directory


def node_directory() -> Path:
    """Return the directory of this worker's node."""
    return run_directory() / "node" / os.environ.get("PYTEST_XDIST_WORKER", "main")


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    # What a test starts inherits the variables.
    for kind in ("state", "marker"):
        os.environ[f"CANHAZGPU_NODE_{kind.upper()}_DIR"] = str(node_directory() / kind)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish() -> None:
    shutil.rmtree(node_directory(), ignore_errors=True)
