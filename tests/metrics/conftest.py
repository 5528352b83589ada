"""A node of simulated GPUs, whose hooks ask no agent unless a test has one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hosts.hook_node import HookNode, make_hook_node
from metrics_programs import need_program
from simulated_driver import install_driver

import fake_nvml


@pytest.fixture
def node(tmp_path: Path) -> Iterator[HookNode]:
    if os.geteuid() != 0:
        pytest.skip("only root runs hooks")
    library = install_driver(tmp_path / "driver")
    state = fake_nvml.FakeState(library.parent / "state")
    with make_hook_node(tmp_path, library, "slurm", state) as made:
        made.slurm(squeue="echo 12 RUNNING")
        yield made


@pytest.fixture
def textfile(node: HookNode, tmp_path: Path) -> Path:
    """The node's file of metrics, which the configuration names."""
    path = tmp_path / "collected" / "canhazgpu.prom"
    path.parent.mkdir()
    node.configure(metrics={"textfile": str(path)})
    return path


@pytest.fixture
def check_metrics() -> Callable[[bytes], None]:
    """Let promtool check a text: its format, names and units."""
    promtool = need_program("promtool")

    def check(text: bytes) -> None:
        done = subprocess.run(
            [promtool, "check", "metrics"],
            input=text, capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr.decode()) == (0, "")

    return check
