"""What people read when something is wrong with a GPU, and that it tells them what to do."""

from __future__ import annotations

import ctypes.util
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import fake_nvml
from canhazgpu.ledger.port import Observation
from canhazgpu.probe import fault_messages

Observe = Callable[..., Observation]

WHOLE = [
    (9, "Driver Not Loaded (NVML error 9): load the driver with 'modprobe nvidia', or install it"),
    (
        18,
        "RM has detected an NVML/RM version mismatch (NVML error 18):"
        " the driver was updated under the running one: reboot, or reload the nvidia modules",
    ),
    (
        4,
        "Insufficient Permissions (NVML error 4): scan as root, or allow the device files"
        " /dev/nvidia*",
    ),
    (17, "The operating system has blocked the request (NVML error 17): check the cgroup and"),
    (999, "Unknown Error (NVML error 999): look for NVRM and Xid in 'dmesg', and reboot"),
    (29, "NVML error 29): look for NVRM and Xid in 'dmesg'"),
]


@pytest.mark.parametrize(("code", "text"), WHOLE)
def test_no_driver(node: fake_nvml.FakeNode, observe: Observe, code: int, text: str) -> None:
    node.inject("nvmlInit", return_=code)
    assert text in (observe().scan.fault or "")


def test_no_library(node: fake_nvml.FakeNode, observe: Observe) -> None:
    if ctypes.util.find_library("nvidia-ml"):
        pytest.skip("this machine has a real library")
    assert (observe(nvml_library="").scan.fault or "").endswith(
        "NVML Shared Library Not Found (NVML error 12): install the driver's libraries, or set"
        " validation.nvml_library"
    )


ONE_GPU = [
    ("nvmlDeviceGetHandleByIndex", 2, "the GPU went away during the scan: scan again"),
    ("nvmlDeviceGetHandleByIndex", 4, "scan as root, or allow the device files /dev/nvidia*"),
    ("nvmlDeviceGetHandleByIndex", 8, "check the power cables"),
    ("nvmlDeviceGetHandleByIndex", 15, "reboot the node, and have the GPU checked"),
    ("nvmlDeviceGetUUID", 15, "GPU is lost (NVML error 15): reboot the node"),
    ("nvmlDeviceGetUUID", 16, "reset it with 'nvidia-smi --gpu-reset'"),
    ("nvmlDeviceGetMemoryInfo", 4, "Insufficient Permissions (NVML error 4): scan as root"),
    ("nvmlDeviceGetComputeRunningProcesses", 3, "Not Supported (NVML error 3): this driver"),
    ("nvmlDeviceGetComputeRunningProcesses", 4, "Insufficient Permissions (NVML error 4)"),
    ("nvmlDeviceGetComputeRunningProcesses", 7, "the list grew while it was read: scan again"),
    ("nvmlDeviceGetComputeRunningProcesses", 13, "(NVML error 13): the driver is older than"),
    ("nvmlDeviceGetGraphicsRunningProcesses", 999, "look for NVRM and Xid in 'dmesg'"),
]


@pytest.mark.parametrize(("function", "code", "text"), ONE_GPU)
def test_one_gpu(
    node: fake_nvml.FakeNode, observe: Observe, function: str, code: int, text: str
) -> None:
    node.inject(function, return_=code, gpu=2)
    node.gpu(3).override_used(5000)
    seen = observe()
    told = [gpu.fault for gpu in seen.scan.gpus]
    assert (told[0], told[1], told[3]) == (None, None, None)
    assert text in (told[2] or "")
    assert seen.in_use == {node.gpu(3).uuid}


@pytest.mark.parametrize("function", ["Graphics", "MPSCompute"])
@pytest.mark.parametrize("code", [3, 13])
def test_a_list_that_the_driver_does_not_have_is_no_fault(
    node: fake_nvml.FakeNode, observe: Observe, function: str, code: int
) -> None:
    node.gpu(0).add_process(os.getpid(), 7000)
    node.inject(f"nvmlDeviceGet{function}RunningProcesses", return_=code)
    seen = observe()
    assert [gpu.fault for gpu in seen.scan.gpus] == [None] * 4
    assert seen.in_use == {node.gpu(0).uuid}


@pytest.mark.parametrize("kind", ["C", "G", "M"])
def test_every_list_is_read(node: fake_nvml.FakeNode, observe: Observe, kind: str) -> None:
    node.gpu(0).add_process(os.getpid(), None, kind=kind)
    assert observe().in_use == {node.gpu(0).uuid}


@pytest.mark.parametrize("code", [3, 4, 13])
def test_a_device_number_that_is_not_told_is_none(
    node: fake_nvml.FakeNode, observe: Observe, code: int
) -> None:
    node.inject("nvmlDeviceGetMinorNumber", return_=code, gpu=1)
    gpu = observe().scan.gpus[1]
    assert gpu.device_number is None
    assert (gpu.fault is None) == (code != 4)


@pytest.mark.slow
def test_a_driver_without_fields_of_health(
    node: fake_nvml.FakeNode, observe: Observe, old_library: Path
) -> None:
    node.gpu(0).set_health(remap_pending=1)
    health = observe(nvml_library=str(old_library)).scan.gpus[0].health
    assert health is not None
    assert (health.recovery_action, health.remap_pending) == (None, True)
    node.inject("nvmlDeviceGetFieldValues", absent=True)
    gpu = observe().scan.gpus[0]
    assert gpu.fault is None
    assert gpu.health is not None
    assert (gpu.health.remap_pending, gpu.health.compute_mode) == (None, "default")


@pytest.mark.parametrize("code", [*range(1, 31), 999, 12345])
def test_every_code_has_a_next_step(code: int) -> None:
    for text in (
        fault_messages.nvml_fault("Words.", code),
        fault_messages.exit_fault("Words.", code),
    ):
        words, _, step = text.partition("): ")
        assert words.startswith("Words (")
        assert str(code) in words
        assert len(step) > 8
        assert "\n" not in text
        assert len(text) < 200


@pytest.mark.parametrize("words", ["N/A", "GPU IS LOST", "Unknown Error", "never seen before"])
def test_every_word_of_nvidia_smi_has_a_next_step(words: str) -> None:
    assert fault_messages.value_fault("memory.used", words).startswith(
        f"{words} (memory.used of nvidia-"
    )
