"""A plugin for pytest: the tests' node keeps its files in a directory of their own.

The defaults are the machine's. What one test, or somebody's own installation, left there would
change what another test sees: a book that the marker says was lost, or an outage of the store.
Tests of the defaults give an environment without these variables; those on a Slurm have none, as
their nodes have a configuration of their own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from run_files import run_directory

KINDS = ("state", "marker")


def node_directory() -> Path:
    """Return the directory of this worker's node."""
    return run_directory() / "node" / os.environ.get("PYTEST_XDIST_WORKER", "main")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    # What a test starts inherits the variables.
    for kind in KINDS:
        variable = f"CANHAZGPU_NODE_{kind.upper()}_DIR"
        if item.get_closest_marker("slurm") is None:
            os.environ[variable] = str(node_directory() / kind)
        else:
            os.environ.pop(variable, None)
    try:
        return (yield)
    finally:
        shutil.rmtree(node_directory(), ignore_errors=True)
