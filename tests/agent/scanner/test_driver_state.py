"""What tells that an initialised driver is no longer the one that it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from polling import poll_until
from scanner_host import ScannerHost, is_running
from simulated_driver import install_driver

import fake_nvml
from canhazgpu.agent.scanner import driver_state
from canhazgpu.agent.scanner.driver_state import loaded_library, read_driver_state
from canhazgpu.probe.bounded_child import BoundedChild
from canhazgpu.probe.node_probe import PendingNodeScan

Ask = Callable[..., PendingNodeScan]


@pytest.fixture
def module(
    node: fake_nvml.FakeNode, place: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """Writes what the kernel module shows; the scanner sees it in the place of the real one."""
    proc = place / "proc"
    version = place / "version"
    monkeypatch.setattr(driver_state, "DRIVER_PROC", str(proc / "nvidia"))
    monkeypatch.setattr(driver_state, "MODULE_VERSION", str(version))

    def write() -> None:
        node.write_driver_proc(proc / "nvidia" / "gpus")
        node.write_mig_proc(proc)
        version.write_text("570.124.06\n")

    write()
    return write


def test_it_is_empty_without_a_driver(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_state, "DRIVER_PROC", "/nowhere")
    monkeypatch.setattr(driver_state, "MODULE_VERSION", "/nowhere")
    state = read_driver_state("/nowhere")
    assert state == driver_state.DriverState((), (), "", (None,))


@pytest.mark.slow
def test_it_names_gpus_and_instances(
    node: fake_nvml.FakeNode, module: Callable[[], None], library: Path
) -> None:
    node.gpu(1).add_mig(0, gpu_instance_id=7)
    node.gpu(1).add_mig(1, gpu_instance_id=3)
    module()
    state = read_driver_state(str(library))
    assert len(state.gpus) == 4
    assert state.version == "570.124.06\n"
    assert None not in state.libraries
    found = [one for one in state.instances if "/ci" in one]
    assert [one.partition("/")[2] for one in found] == ["gi3/ci0", "gi7/ci0"]


def more_gpus(node: fake_nvml.FakeNode, place: Path, library: Path) -> None:
    (place / "proc" / "nvidia" / "gpus" / "0000:ff:00.0").mkdir()


def another_instance(node: fake_nvml.FakeNode, place: Path, library: Path) -> None:
    (place / "proc" / "nvidia" / "capabilities" / "gpu0" / "mig" / "gi9" / "ci0").mkdir(
        parents=True
    )


def another_module(node: fake_nvml.FakeNode, place: Path, library: Path) -> None:
    (place / "version").write_text("575.0\n")


def another_library(node: fake_nvml.FakeNode, place: Path, library: Path) -> None:
    """As a package manager puts it: a new file of the same name."""
    new = install_driver(place / "newer")
    new.replace(library)


def another_link(node: fake_nvml.FakeNode, place: Path, library: Path) -> None:
    """As a package manager puts it: the link points to another file, and the old one is there."""
    link = library.with_name("link.so")
    link.unlink()
    link.symlink_to(install_driver(place / "newer"))


@pytest.mark.parametrize(
    "change", [more_gpus, another_instance, another_module, another_library, another_link]
)
def test_a_change_makes_a_new_reader(
    ask: Ask,
    scanner: ScannerHost,
    node: fake_nvml.FakeNode,
    module: Callable[[], None],
    library: Path,
    place: Path,
    change: Callable[[fake_nvml.FakeNode, Path, Path], None],
) -> None:
    """Given what an initialised NVML itself would not notice."""
    link = library.with_name("link.so")
    link.symlink_to(library)
    ask(nvml_library=str(link)).observe()
    ask(nvml_library=str(link)).observe()
    (first,) = scanner.readers()
    change(node, place, library)
    assert ask(nvml_library=str(link)).observe().scan.fault is None
    poll_until(lambda: not is_running(first), "the end of the first reader")
    (second,) = scanner.readers()
    ask(nvml_library=str(link)).observe()
    assert scanner.readers() == [second], "the state is what it was"


def test_the_library_that_is_loaded(node: fake_nvml.FakeNode, library: Path) -> None:
    def work() -> bytes:
        from canhazgpu.probe.nvml.reader import nvml_session

        before = loaded_library()
        with nvml_session(str(library)):
            return json.dumps([before, loaded_library()]).encode()

    before, after = json.loads(BoundedChild(work, 60).result())
    assert (before, os.path.realpath(after)) == ("", str(library.resolve()))
