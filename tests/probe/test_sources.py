"""Which source is asked, what follows one that cannot be used, and how they share the time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import fake_nvml
from canhazgpu.config.schema import ValidationConfig
from canhazgpu.ledger.port import Observation
from canhazgpu.probe import sources
from canhazgpu.probe.node_probe import NodeProbe

pytestmark = pytest.mark.slow

Observe = Callable[..., Observation]


@pytest.fixture
def auto(observe: Observe, smi: Path) -> Observe:
    """Scans once by NVML, and nvidia-smi after it."""

    def scan(**validation: object) -> Observation:
        return observe(**{"probe": "auto", "nvidia_smi": str(smi), **validation})

    return scan


def test_nvml_comes_first_and_starts_no_program(
    node: fake_nvml.FakeNode, auto: Observe, place: Path
) -> None:
    program = place / "marks"
    program.write_text(f"#!/bin/sh\ntouch {place}/called\nexit 1\n")
    program.chmod(0o755)
    seen = auto(nvidia_smi=str(program))
    assert (seen.scan.source, seen.scan.fault, len(seen.scan.gpus)) == ("nvml", None, 4)
    assert not (place / "called").exists()


def test_without_a_library_nvidia_smi_reads(
    node: fake_nvml.FakeNode, auto: Observe, place: Path
) -> None:
    node.gpu(1).override_used(5000)
    seen = auto(nvml_library=str(place / "missing.so"))
    assert (seen.scan.source, seen.scan.fault) == ("nvidia-smi", None)
    assert seen.in_use == {node.gpu(1).uuid}


def test_nvml_that_hangs_leaves_time_for_nvidia_smi(
    node: fake_nvml.FakeNode, auto: Observe
) -> None:
    node.inject("nvmlDeviceGetGraphicsRunningProcesses", hang=True, gpu=2)
    node.gpu(1).override_used(5000)
    began = time.monotonic()
    seen = auto(scan_timeout_s=6.0)
    assert 4.4 < time.monotonic() - began < 12
    assert (seen.scan.source, seen.scan.fault) == ("nvidia-smi", None)
    assert seen.in_use == {node.gpu(1).uuid}
    assert seen.age_s >= 4.4, "the age counts from the first source's start"


def test_nvml_that_crashes_leaves_all_the_time(
    node: fake_nvml.FakeNode, library: Path, smi: Path
) -> None:
    node.inject("nvmlDeviceGetGraphicsRunningProcesses", hang=True)
    pending = NodeProbe(
        "n1", ValidationConfig(nvml_library=str(library), nvidia_smi=str(smi))
    ).start()
    os.kill(pending._source_scan._child._pid, signal.SIGKILL)  # type: ignore[union-attr]
    seen = pending.observe()
    assert (seen.scan.source, seen.scan.fault, len(seen.scan.gpus)) == ("nvidia-smi", None, 4)


def test_when_both_fail_both_are_told(node: fake_nvml.FakeNode, auto: Observe, place: Path) -> None:
    node.inject("nvmlInit", return_=18)
    seen = auto()
    assert seen.scan.gpus == ()
    step = "the driver was updated under the running one: reboot, or reload the nvidia modules"
    assert seen.scan.fault == (
        "the GPUs could not be read:"
        f" nvml: RM has detected an NVML/RM version mismatch (NVML error 18): {step};"
        " nvidia-smi: Failed to initialize NVML: Driver/library version mismatch"
        f" (exit status 18): {step}"
    )


def test_when_both_hang_the_time_is_kept(node: fake_nvml.FakeNode, auto: Observe) -> None:
    node.inject("nvmlInit", hang=True)
    began = time.monotonic()
    seen = auto(scan_timeout_s=3.0)
    assert 2.9 < time.monotonic() - began < 5.9  # not twice
    assert (seen.scan.fault or "").count("no answer within") == 2


def test_a_gpu_that_fails_is_no_reason_to_ask_another(
    node: fake_nvml.FakeNode, auto: Observe
) -> None:
    node.inject("nvmlDeviceGetGraphicsRunningProcesses", return_=15, gpu=1)
    seen = auto()
    assert (seen.scan.source, seen.unknown) == ("nvml", {node.gpu(1).uuid})


def test_nvml_alone_asks_nobody_else(node: fake_nvml.FakeNode, auto: Observe, place: Path) -> None:
    seen = auto(probe="nvml", nvml_library=str(place / "missing.so"))
    assert (seen.scan.source, seen.scan.gpus) == ("nvml", ())
    assert "correct validation.nvml_library" in (seen.scan.fault or "")


def test_nvidia_smi_alone_asks_nobody_else(
    node: fake_nvml.FakeNode, auto: Observe, place: Path
) -> None:
    seen = auto(probe="nvidia-smi", nvidia_smi=str(place / "missing"))
    assert (seen.scan.source, seen.scan.gpus) == ("nvidia-smi", ())
    assert "correct validation.nvidia_smi" in (seen.scan.fault or "")


def test_a_node_without_nvidia_smi_has_nothing_to_fall_back_on(
    node: fake_nvml.FakeNode, auto: Observe, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "NVIDIA_SMI_PATHS", (str(place / "a"), str(place / "b")))
    seen = auto(nvidia_smi="", nvml_library=str(place / "missing.so"))
    assert seen.scan.source == "nvml"
    assert "nvidia-smi" not in (seen.scan.fault or "")
    named = auto(probe="nvidia-smi", nvidia_smi="")
    assert "none of the usual places: install the driver" in (named.scan.fault or "")


def test_the_first_usual_place_that_has_it_is_used(
    node: fake_nvml.FakeNode, auto: Observe, smi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "NVIDIA_SMI_PATHS", ("/nowhere/nvidia-smi", str(smi)))
    seen = auto(probe="nvidia-smi", nvidia_smi="")
    assert (seen.scan.fault, len(seen.scan.gpus)) == (None, 4)
