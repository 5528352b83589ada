"""A scanner over simulated GPUs, started as the agent's listener starts it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scanner_host import ScannerHost, wait_for_scanner
from simulated_driver import install_driver

import fake_nvml
from canhazgpu.agent.scanner.client import scanner_probe
from canhazgpu.config.schema import ValidationConfig
from canhazgpu.probe.node_probe import PendingNodeScan
from canhazgpu.probe.source_scan import PendingSourceScan, StartSourceScan

Ask = Callable[..., PendingNodeScan]


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path: a socket's may have 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="chg-scanner-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def library(place: Path) -> Path:
    """A driver of this test's own; its GPUs are described beside it."""
    return install_driver(place / "driver")


@pytest.fixture
def node(library: Path) -> fake_nvml.FakeNode:
    state = fake_nvml.FakeState(library.parent / "state")
    state.set_default_node("n1")
    return state.add_node("n1", 4)


@pytest.fixture
def scanner(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScannerHost]:
    wait_for_scanner(monkeypatch)
    host = ScannerHost(place)
    yield host
    host.stop()


def no_scanner(*_: object) -> PendingSourceScan:
    pytest.fail("the scanner did not scan")


@pytest.fixture
def ask(node: fake_nvml.FakeNode, library: Path, place: Path, scanner: ScannerHost) -> Ask:
    """Asks the scanner for a scan by NVML; keywords are keys of the section ``validation``.

    The listener starts with the first use, so that it has what a test patched.
    """

    def start(without_scanner: StartSourceScan = no_scanner, **keys: object) -> PendingNodeScan:
        if not scanner.socket_path.exists():
            scanner.start()
        settings = {"probe": "nvml", "nvml_library": str(library), **keys}
        return scanner_probe(
            "n1",
            ValidationConfig(**settings),  # type: ignore[arg-type]
            place / "slurm.conf",
            place,
            lambda: False,
            scanner.socket_path,
            without_scanner,
        ).start()

    return start
