"""Whatever NVML returns: it is a reading, or an error of the scan, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from garbage.judgement import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from canhazgpu.errors import ScanError
from canhazgpu.gpu.scan import Scan
from canhazgpu.gpu.scan_json import scan_from_json, scan_to_json
from canhazgpu.gpu.usage import Usage, UsagePolicy, judge_usage
from canhazgpu.probe.nvml import reader as nvml

POLICY = UsagePolicy(1024)
MIB = 1 << 20
Answer = Callable[..., Any]

UINTS = st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1), st.just(2**32 - 1))
LONGS = st.one_of(st.integers(0, 20000).map(lambda one: one * MIB), st.integers(0, 2**64 - 1))
BYTES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"", b"GPU-a", b"GPU-b", b"\xff\xfe", b"MIG-a", b"a\nb\x1b[31m", b"G" * 5000]),
)
PROCESSES = st.lists(
    st.builds(SimpleNamespace, pid=UINTS, usedGpuMemory=st.none() | LONGS), max_size=3
)
VALUE = st.builds(
    SimpleNamespace, uiVal=UINTS, ulVal=LONGS, ullVal=LONGS, sllVal=st.integers(-(2**63), 2**63 - 1)
)
FIELD = st.builds(SimpleNamespace, valueType=UINTS, nvmlReturn=UINTS, value=VALUE)
RETURNED: dict[str, st.SearchStrategy[Any]] = {
    "nvmlDeviceGetCount": UINTS,
    "nvmlDeviceGetUUID": BYTES,
    "nvmlDeviceGetName": BYTES,
    "nvmlDeviceGetMinorNumber": UINTS,
    "nvmlDeviceGetMigMode": st.lists(UINTS, min_size=2, max_size=2),
    "nvmlDeviceGetMaxMigDeviceCount": UINTS,
    "nvmlDeviceGetMigDeviceHandleByIndex": UINTS,
    "nvmlDeviceGetGpuInstanceId": UINTS,
    "nvmlDeviceGetComputeInstanceId": UINTS,
    "nvmlDeviceGetMemoryInfo": st.builds(SimpleNamespace, used=LONGS, total=LONGS, free=LONGS),
    "nvmlDeviceGetComputeRunningProcesses": PROCESSES,
    "nvmlDeviceGetGraphicsRunningProcesses": PROCESSES,
    "nvmlDeviceGetMPSComputeRunningProcesses": PROCESSES,
    "nvmlDeviceGetFieldValues": st.lists(FIELD, min_size=5, max_size=5),
    "nvmlDeviceGetComputeMode": UINTS,
    "nvmlDeviceGetPciInfo": st.builds(SimpleNamespace, busId=BYTES),
    "nvmlDeviceGetUtilizationRates": st.builds(SimpleNamespace, gpu=UINTS, memory=UINTS),
}
"""What pynvml returns of each, as far as the types of C allow."""
SIGNS = {"nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses"}
"""Either shows that a GPU is in use; whoever changes both changes what is so."""


def driver() -> dict[str, Answer]:
    """Two GPUs, by index: `GPU-a` uses 9000 MB, `GPU-b` nothing."""
    using = SimpleNamespace(pid=os.getpid(), usedGpuMemory=9000 * MIB)
    memory = [SimpleNamespace(used=used * MIB, total=81559 * MIB) for used in (9000, 4)]
    nothing = SimpleNamespace(valueType=0, nvmlReturn=3, value=None)
    return {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda handle: (b"GPU-a", b"GPU-b")[handle % 2],
        "nvmlDeviceGetName": lambda _: b"NVIDIA H100",
        "nvmlDeviceGetMinorNumber": lambda handle: handle,
        "nvmlDeviceGetMigMode": lambda _: [0, 0],
        "nvmlDeviceGetMaxMigDeviceCount": lambda _: 0,
        "nvmlDeviceGetMigDeviceHandleByIndex": lambda handle, _: handle,
        "nvmlDeviceGetGpuInstanceId": lambda _: 1,
        "nvmlDeviceGetComputeInstanceId": lambda _: 0,
        "nvmlDeviceGetMemoryInfo": lambda handle, **_: memory[handle % 2],
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: [] if handle % 2 else [using],
        "nvmlDeviceGetGraphicsRunningProcesses": lambda _: [],
        "nvmlDeviceGetMPSComputeRunningProcesses": lambda _: [],
        "nvmlDeviceGetFieldValues": lambda *_: [nothing] * 5,
        "nvmlDeviceGetComputeMode": lambda _: 0,
        "nvmlDeviceGetPciInfo": lambda handle: SimpleNamespace(busId=b"00000000:%d0:00.0" % handle),
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=0, memory=0),
    }


def failing(code: int) -> Answer:
    def fail(*_: object, **__: object) -> None:
        raise pynvml.NVMLError(code)

    return fail


@contextmanager
def loaded(answers: dict[str, Answer]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, answer in answers.items():
            patch.setattr(pynvml, name, answer)
        yield


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Answer]:
    """Some of the driver's functions return something else, always the same, or fail."""
    names = draw(st.sets(st.sampled_from(sorted(RETURNED)), min_size=1, max_size=3))
    names -= {"nvmlDeviceGetComputeRunningProcesses"} if names >= SIGNS else set()
    made: dict[str, Answer] = {}
    for name in sorted(names):
        value = draw(RETURNED[name])
        code = draw(st.sampled_from([0, 0, 0, 1, 3, 4, 7, 15, 25, 999]))
        made[name] = failing(code) if code else (lambda *_, _value=value, **__: _value)
    return made


def test_any_value(figures: Callable[[str], None]) -> None:
    """As long as one of two signs can be read, `GPU-a` is never free."""
    tried, refused = [], []

    @settings(max_examples=examples(300), deadline=None)
    @given(changes())
    def holds(changed: dict[str, Answer]) -> None:
        tried.append(1)
        with loaded(driver() | changed):
            try:
                found = nvml.read_gpus()
            except ScanError as exc:
                refused.append(str(exc))
                return
        free = {one.uuid for one in found if judge_usage(one, POLICY) is Usage.FREE}
        assert "GPU-a" not in free
        scan = Scan("n1", 0.0, 0.0, found)
        assert scan_from_json(scan_to_json(scan)) == scan

    holds()
    assert len(refused) < len(tried)
    figures(f"NVML's values: {len(tried)} tried, {len(refused)} refused, 0 broke")


def test_without_a_change_one_gpu_is_free() -> None:
    with loaded(driver()):
        found = nvml.read_gpus()
    assert [one.uuid for one in found if judge_usage(one, POLICY) is Usage.FREE] == ["GPU-b"]


def test_more_gpus_than_there_can_be_are_no_scan() -> None:
    changed = {"nvmlDeviceGetCount": lambda: 2**32 - 1}
    with loaded(driver() | changed), pytest.raises(ScanError, match="4294967295 GPUs"):
        nvml.read_gpus()


def test_more_instances_than_there_can_be_are_a_fault_of_that_gpu() -> None:
    changed = {
        "nvmlDeviceGetMigMode": lambda handle: [1 - handle, 0],
        "nvmlDeviceGetMaxMigDeviceCount": lambda _: 2**32 - 1,
    }
    with loaded(driver() | changed):
        broken, well = nvml.read_gpus()
    assert (broken.uuid, well.uuid, well.fault) == ("GPU-a", "GPU-b", None)
    assert "4294967295 MIG instances" in (broken.fault or "")
