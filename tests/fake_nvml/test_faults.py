"""Injected faults, drivers that lack calls, and state files full of garbage."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time

import pytest

pytestmark = pytest.mark.slow


def test_an_error_for_one_function_or_for_one_gpu(nvml, node):
    node.inject("nvmlDeviceGetMemoryInfo_v2", return_=3)
    assert nvml("used_mb(handle(0))") == {"error": 3}
    assert nvml("p.nvmlDeviceGetMemoryInfo(handle(0)).used >> 20") == 596
    node.inject("nvmlDeviceGetMemoryInfo", return_=15, gpu=1)
    node.clear_injections("nvmlDeviceGetMemoryInfo_v2")
    assert nvml("used_mb(handle(0))") == 45
    assert nvml("used_mb(handle(1))") == {"error": 15}
    node.inject("nvmlDeviceGetHandleByIndex", return_=15, gpu=[node.gpu(0)])
    assert nvml("handle(0)") == {"error": 15}
    assert nvml("p.nvmlDeviceGetIndex(handle(1))") == 1
    node.clear_injections()
    assert nvml("[used_mb(handle(0)), used_mb(handle(1))]") == [45, 45]


def test_an_error_at_init(state, node, library, interpreter):
    node.inject("nvmlInit", return_=18)
    nvml = interpreter(library, state.env("n1"))
    assert nvml("p.nvmlInit()") == {"error": 18}
    assert nvml("p.nvmlErrorString(18)") == "Driver/library version mismatch"
    node.clear_injections()
    assert nvml("p.nvmlInit()") is None


def test_a_delay(nvml, node):
    node.inject("nvmlDeviceGetCount", delay_ms=200)
    began = time.monotonic()
    assert nvml("p.nvmlDeviceGetCount()") == 2
    assert 0.2 <= time.monotonic() - began < 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_call_that_hangs_can_be_killed(nvml, node, number):
    node.inject("nvmlDeviceGetUUID", hang=True, gpu=1)
    assert nvml("p.nvmlDeviceGetUUID(handle(0))") == node.gpu(0).uuid
    nvml.send("p.nvmlDeviceGetUUID(handle(1))")
    assert not select.select([nvml.process.stdout], [], [], 0.3)[0]
    nvml.process.send_signal(number)
    assert nvml.process.wait(5) == -number


def test_a_function_that_is_absent(nvml, node):
    node.inject("nvmlDeviceGetComputeRunningProcesses_v3", absent=True)
    assert nvml("p.nvmlDeviceGetComputeRunningProcesses_v3(handle(0))") == {"error": 13}
    assert nvml("p.nvmlDeviceGetComputeRunningProcesses_v2(handle(0))") == []


def test_an_injection_that_is_misspelt_is_loud(nvml, node):
    (node.path / "inject").mkdir()
    for text in ("retrun=3\n", "return=x\n", "hang\n", "\0"):
        (node.path / "inject" / "nvmlDeviceGetCount").write_text(text)
        assert nvml("p.nvmlDeviceGetCount()") == {"error": 999}


def test_an_old_driver(state, node, old_library, interpreter):
    nvml = interpreter(old_library, state.env("n1"))
    nvml("p.nvmlInit()")
    node.gpu(0).add_process(os.getpid(), 100)
    assert nvml("p.nvmlDeviceGetComputeRunningProcesses_v3(handle(0))") == {"error": 13}
    with pytest.raises(AssertionError, match="NVMLLibraryMismatchError"):
        nvml("p.nvmlDeviceGetComputeRunningProcesses(handle(0))")
    assert nvml("p.nvmlDeviceGetComputeRunningProcesses_v2(handle(0))[0].pid") == os.getpid()
    assert nvml("used_mb(handle(0))") == {"error": 13}
    assert nvml("p.nvmlDeviceGetMemoryInfo(handle(0)).used >> 20") == 45 + 551 + 100
    assert nvml("p.nvmlDeviceGetFieldValues(handle(0), [230])[0].nvmlReturn") == 3
    assert nvml("p.nvmlSystemGetDriverVersion()") == "470.256.02"


def test_the_file_is_what_pynvml_looks_for_and_needs_only_libc(library, old_library):
    for path in (library, old_library):
        dynamic = subprocess.check_output(["readelf", "-d", path], text=True)
        assert re.findall(r"SONAME.*\[(.*)\]", dynamic) == ["libnvidia-ml.so.1"]
        assert re.findall(r"NEEDED.*\[(.*)\]", dynamic) == ["libc.so.6"]


GARBAGE = (b"", b"\n\n", b"-1", b"12 13", b"1e3", b"9" * 40, b"\xff\xfe\0", b"%s%n", b"A" * 100_000)
NUMBERS = {
    "minor": "p.nvmlDeviceGetMinorNumber(handle(0))",
    "memory_total_mb": "used_mb(handle(0))",
    "memory_used_mb": "used_mb(handle(0))",
    "memory_used_override_mb": "used_mb(handle(0))",
    "pci_bus_id": "p.nvmlDeviceGetPciInfo(handle(0))",
    "compute_mode": "p.nvmlDeviceGetComputeMode(handle(0))",
    "remap_pending": "p.nvmlDeviceGetRemappedRows(handle(0))",
    "ecc_uncorrected_volatile": "p.nvmlDeviceGetTotalEccErrors(handle(0), 1, 0)",
}


@pytest.mark.parametrize("field", NUMBERS)
def test_garbage_in_a_number_is_an_unknown_error(nvml, node, field):
    for garbage in GARBAGE:
        (node.gpu(0).path / field).write_bytes(garbage)
        assert nvml(NUMBERS[field]) == {"error": 999}, garbage


def test_garbage_elsewhere_is_an_unknown_error(nvml, node):
    gpu = node.gpu(0)
    for garbage in (b"", b"\xff", b"two\nlines", b"A" * 100_000):
        (gpu.path / "name").write_bytes(garbage)
        assert nvml("p.nvmlDeviceGetName(handle(0))") == {"error": 999}
    (gpu.path / "name").write_text("A" * 200)
    assert nvml("p.nvmlDeviceGetName(handle(0))") == {"error": 7}
    os.mkfifo(gpu.path / "utilization_gpu")
    assert nvml("p.nvmlDeviceGetUtilizationRates(handle(0))") == {"error": 999}
    (gpu.path / "compute_mode").mkdir()
    assert nvml("p.nvmlDeviceGetComputeMode(handle(0))") == {"error": 999}

    announced = gpu.path / "processes" / str(os.getpid())
    for text in ("memory_mb=-5", "type=X", "nonsense", "memory_mb=1\0", "start=now", "ghost=2"):
        announced.write_text(text)
        assert nvml("pids(handle(0))") == {"error": 999}, text
        assert nvml("used_mb(handle(0))") == {"error": 999}, text
    announced.unlink()
    for name in (".hidden", "0", "abc", "-1", "99999999999999999999", "12x"):
        (gpu.path / "processes" / name).write_text("nonsense")
    assert nvml("pids(handle(0))") == []


def test_directories_that_are_no_gpus_are_ignored(nvml, node):
    for name in ("x", "01", "-1", "999", "2.old", ".2.new"):
        (node.path / "gpus" / name).mkdir()
    assert nvml("p.nvmlDeviceGetCount()") == 2
