"""Simulated GPUs in the environment of this process, as a node's hooks would find real ones."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulated_driver import install_driver

import fake_nvml
from canhazgpu.config.schema import ValidationConfig
from canhazgpu.ledger.port import Observation
from canhazgpu.probe.node_probe import NodeProbe
from canhazgpu.probe.nvidia_smi import reader as nvidia_smi


@pytest.fixture(scope="session")
def reachable() -> Iterator[Path]:
    """A directory that every Unix user can get into."""
    directory = Path(tempfile.mkdtemp(prefix="chg-probe-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def library(reachable: Path) -> Path:
    return install_driver(reachable / "new")


@pytest.fixture(scope="session")
def old_library(reachable: Path) -> Path:
    return install_driver(reachable / "old", old=True)


@pytest.fixture(scope="session")
def programs(reachable: Path) -> Path:
    """The directory of the simulated nvidia-smi."""
    return install_driver(reachable / "programs").parent


@pytest.fixture
def place(reachable: Path) -> Path:
    """This test's own directory, which every user can read."""
    made = Path(tempfile.mkdtemp(dir=reachable, prefix="test-"))
    made.chmod(0o755)
    return made


@pytest.fixture
def state(place: Path, monkeypatch: pytest.MonkeyPatch) -> fake_nvml.FakeState:
    made = fake_nvml.FakeState(place / "state")
    made.set_default_node("n1")
    for name, value in made.env("n1").items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def smi(
    place: Path, programs: Path, state: fake_nvml.FakeState, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """nvidia-smi over this test's state, which it finds beside itself: its environment is clean."""
    program = place / "nvidia-smi"
    program.symlink_to(programs / "nvidia-smi")
    monkeypatch.setattr(nvidia_smi, "MODULE_VERSION_FILE", place / "version")
    monkeypatch.setattr(nvidia_smi, "DRIVER_GPU_DIRECTORY", place / "gpus")
    return program


@pytest.fixture
def node(state: fake_nvml.FakeState) -> fake_nvml.FakeNode:
    return state.add_node("n1", 4, minors=[3, 2, 1, 0])


Observe = Callable[..., Observation]


@pytest.fixture
def observe(library: Path) -> Observe:
    """Scans once by NVML alone; keywords are keys of the section ``validation``."""

    def scan(**validation: object) -> Observation:
        settings = {"probe": "nvml", "nvml_library": str(library), **validation}
        return NodeProbe("n1", ValidationConfig(**settings)).start().observe()  # type: ignore[arg-type]

    return scan


@pytest.fixture
def observe_smi(observe: Observe, smi: Path) -> Observe:
    """Scans once by nvidia-smi alone."""

    def scan(**validation: object) -> Observation:
        return observe(**{"probe": "nvidia-smi", "nvidia_smi": str(smi), **validation})

    return scan
