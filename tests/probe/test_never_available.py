"""An error never makes a GPU available: every function, every code, every value in brackets."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import fake_nvml
from canhazgpu.errors import ScanError
from canhazgpu.gpu.usage import Usage, UsagePolicy, judge_usage
from canhazgpu.ledger.port import Observation
from canhazgpu.probe.bounded_child import BoundedChild
from canhazgpu.probe.nvidia_smi import csv_output
from canhazgpu.probe.nvidia_smi import reader as nvidia_smi

Observe = Callable[..., Observation]

POLICY = UsagePolicy(1024)
CODES = (*range(1, 31), 99, 999)
GPU_FUNCTIONS = (
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetComputeRunningProcesses_v2",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetComputeMode",
)
NODE_FUNCTIONS = ("nvmlInit", "nvmlDeviceGetCount", "nvmlShutdown")


@pytest.fixture
def busy(node: fake_nvml.FakeNode) -> list[str]:
    """The UUIDs of GPUs in use, each in its own way; GPU 3 is idle."""
    node.gpu(0).add_process(os.getpid(), 9000)
    node.gpu(1).add_process(os.getpid(), None)
    node.gpu(2).add_mig(0).add_process(os.getpid(), None)
    node.gpu(2).add_mig(1).override_used(5000)
    by_memory = node.add_gpu(4)
    by_memory.override_used(9000)
    gpus = (node.gpu(0), node.gpu(1), node.gpu(2), by_memory)
    return [device.uuid for device in (*gpus, node.gpu(2).mig(0), node.gpu(2).mig(1))]


NO_MEMORY = ("nvmlDeviceGetMemoryInfo", 3)
"""How a GPU of unified memory answers, on which a process is the only sign of use."""


@pytest.mark.slow
def test_nvml(node: fake_nvml.FakeNode, busy: list[str], library: Path) -> None:
    """All scans in one child: the library is loaded once in a process, and for good."""
    by_memory = node.gpu(4).uuid

    def work() -> bytes:
        from canhazgpu.probe.nvml.reader import read_gpus

        def free() -> set[str]:
            try:
                found = read_gpus(str(library))
            except ScanError:
                return set()
            return {gpu.uuid for gpu in found if judge_usage(gpu, POLICY) is Usage.FREE}

        assert free() == {node.gpu(3).uuid}, "without an error the idle GPU is free"
        wrong: list[tuple[str, int, list[str]]] = []
        for function in (*GPU_FUNCTIONS, *NODE_FUNCTIONS):
            for code in CODES:
                node.inject(function, return_=code)
                excused = {by_memory} if (function, code) == NO_MEMORY else set()
                wrong.append((function, code, list(free() & set(busy) - excused)))
            node.inject(function, absent=True)
            wrong.append((function, 0, list(free() & set(busy))))
            node.clear_injections()
        return json.dumps(wrong).encode()

    scans = json.loads(BoundedChild(work, 120).result())
    assert [scan for scan in scans if scan[2]] == []
    assert len(scans) == (len(CODES) + 1) * (len(GPU_FUNCTIONS) + len(NODE_FUNCTIONS))


@pytest.mark.slow
@pytest.mark.parametrize("code", [3, 4, 7, 15, 999])
@pytest.mark.parametrize(
    "function",
    [
        "nvmlInit",
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetComputeRunningProcesses",
    ],
)
def test_nvidia_smi(
    node: fake_nvml.FakeNode, busy: list[str], observe_smi: Observe, function: str, code: int
) -> None:
    node.inject(function, return_=code)
    seen = observe_smi()
    free = {gpu.uuid for gpu in seen.scan.gpus} - seen.in_use - seen.unknown - {""}
    assert not free & set(busy)


WORDS = (
    "N/A",
    "Not Supported",
    "Not Available",
    "Unknown Error",
    "GPU is lost",
    "GPU requires reset",
    "Insufficient Permissions",
    "Not Found",
    "",
    "something new",
)


def printed(row: str) -> nvidia_smi.SmiAnswer:
    return nvidia_smi.SmiAnswer(f"{row}\n", 0)


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("column", range(len(csv_output.gpu_fields())))
def test_a_gpus_cell_without_its_value(
    monkeypatch: pytest.MonkeyPatch, words: str, column: int
) -> None:
    """Given a used GPU with a process that holds its memory, and any one cell in brackets."""
    fields = csv_output.gpu_fields()
    good = ["0", "GPU-a", "00000000:10:00.0", "9000", "81559", "0", "Default", "0", "No"]
    good += ["Disabled", "No", "No", "None", "NVIDIA H100"]
    bad = [f"[{words}]" if place == column else cell for place, cell in enumerate(good)]
    answers = {"gpu": bad, "compute-apps": [str(os.getpid()), "GPU-a", "9000"]}
    rows = {what: ", ".join(cells) for what, cells in answers.items()}
    monkeypatch.setattr(nvidia_smi, "_query", lambda _, what, __: printed(rows[what]))
    monkeypatch.setattr(nvidia_smi, "MODULE_VERSION_FILE", Path("/nowhere"))
    assert len(good) == len(fields)
    try:
        (reading,) = nvidia_smi.read_gpus("nvidia-smi")
    except ScanError:
        return
    assert judge_usage(reading, POLICY) is not Usage.FREE


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("column", range(3))
def test_a_processs_cell_without_its_value(
    monkeypatch: pytest.MonkeyPatch, words: str, column: int
) -> None:
    """Given a GPU whose one process holds an unknown amount."""
    row = [str(os.getpid()), "GPU-a", "[N/A]"]
    row[column] = f"[{words}]"
    idle = "0, GPU-a, 00000000:10:00.0, 45, 81559, 0, Default, 0, No, Disabled, No, No, None, H100"
    answers = {"gpu": idle, "compute-apps": ", ".join(row)}
    monkeypatch.setattr(nvidia_smi, "_query", lambda _, what, __: printed(answers[what]))
    monkeypatch.setattr(nvidia_smi, "MODULE_VERSION_FILE", Path("/nowhere"))
    try:
        (reading,) = nvidia_smi.read_gpus("nvidia-smi")
    except ScanError:
        return
    assert judge_usage(reading, POLICY) is not Usage.FREE
