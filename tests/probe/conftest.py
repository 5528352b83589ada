"""Simulated GPUs in the environment of this process, as a node's hooks would find real ones."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plugins.fast_set import first_and_variants
from scanner_host import ScannerHost, wait_for_scanner
from simulated_driver import install_driver

import fake_nvml
from canhazgpu.agent.scanner.client import scanner_probe
from canhazgpu.config.schema import ValidationConfig
from canhazgpu.ledger.port import Observation
from canhazgpu.probe.node_probe import NodeProbe
from canhazgpu.probe.nvidia_smi import reader as nvidia_smi
from canhazgpu.probe.source_scan import PendingSourceScan


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
def scanner(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScannerHost]:
    """The agent's scanner, which starts with the first use: with all that a test set up before."""
    wait_for_scanner(monkeypatch)
    host = ScannerHost(place)
    yield host
    host.stop()


@pytest.fixture(params=first_and_variants(["child", "scanner"]))
def reads_in(request: pytest.FixtureRequest) -> str:
    """What reads the GPUs: a child for each scan, or the agent's scanner."""
    return str(request.param)


@pytest.fixture
def observe(library: Path, place: Path, scanner: ScannerHost, reads_in: str) -> Observe:
    """Scans once by NVML alone; keywords are keys of the section ``validation``."""

    def probe(validation: ValidationConfig) -> NodeProbe:
        if reads_in == "child":
            return NodeProbe("n1", validation)
        scanner.start()
        conf = place / "slurm.conf"
        path = scanner.socket_path
        return scanner_probe("n1", validation, conf, place, lambda: False, path, no_scanner)

    def scan(**validation: object) -> Observation:
        settings = {"probe": "nvml", "nvml_library": str(library), **validation}
        return probe(ValidationConfig(**settings)).start().observe()  # type: ignore[arg-type]

    return scan


def no_scanner(*_: object) -> PendingSourceScan:
    pytest.fail("the scanner did not scan")


@pytest.fixture
def observe_smi(observe: Observe, smi: Path) -> Observe:
    """Scans once by nvidia-smi alone."""

    def scan(**validation: object) -> Observation:
        return observe(**{"probe": "nvidia-smi", "nvidia_smi": str(smi), **validation})

    return scan
