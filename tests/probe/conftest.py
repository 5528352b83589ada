"""Simulated GPUs in the environment of this process, as a node's hooks would find real ones."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fake_nvml
from canhazgpu.config.schema import ValidationConfig
from canhazgpu.ledger.port import Observation
from canhazgpu.probe.node_probe import NodeProbe


@pytest.fixture(scope="session")
def reachable() -> Iterator[Path]:
    """A directory that every Unix user can get into."""
    directory = Path(tempfile.mkdtemp(prefix="chg-probe-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def library(reachable: Path) -> Path:
    return fake_nvml.build(reachable / "new")


@pytest.fixture(scope="session")
def old_library(reachable: Path) -> Path:
    return fake_nvml.build(reachable / "old", old=True)


@pytest.fixture
def state(reachable: Path, monkeypatch: pytest.MonkeyPatch) -> fake_nvml.FakeState:
    made = fake_nvml.FakeState(tempfile.mkdtemp(dir=reachable, prefix="state-"))
    for name, value in made.env("n1").items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def node(state: fake_nvml.FakeState) -> fake_nvml.FakeNode:
    return state.add_node("n1", 4, minors=[3, 2, 1, 0])


@pytest.fixture
def observe(library: Path) -> Callable[..., Observation]:
    """Scans once; keywords are keys of the section ``validation``."""

    def scan(**validation: object) -> Observation:
        settings = {"probe": "nvml", "nvml_library": str(library), **validation}
        return NodeProbe("n1", ValidationConfig(**settings)).start().observe()  # type: ignore[arg-type]

    return scan
