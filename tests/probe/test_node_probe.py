"""Scans by the real pynvml over the simulated library, with real processes of real users."""

from __future__ import annotations

import os
import pwd
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from polling import poll_until

import fake_nvml
from canhazgpu.config.schema import ValidationConfig
from canhazgpu.ledger.port import Observation
from canhazgpu.probe import source_scan
from canhazgpu.probe.node_probe import NodeProbe, PendingNodeScan

Observe = Callable[..., Observation]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
in_a_child = pytest.mark.parametrize("reads_in", ["child"], indirect=True)


def uuids(node: fake_nvml.FakeNode, *indices: int) -> frozenset[str]:
    return frozenset(node.gpu(index).uuid for index in indices)


def test_idle_gpus_are_neither_in_use_nor_unknown(
    node: fake_nvml.FakeNode, observe: Observe
) -> None:
    before = time.time()
    seen = observe()
    assert seen.scan.fault is None
    assert (seen.scan.node, seen.in_use, seen.unknown) == ("n1", frozenset(), frozenset())
    assert [gpu.uuid for gpu in seen.scan.gpus] == [gpu.uuid for gpu in node.gpus]
    assert [gpu.index for gpu in seen.scan.gpus] == [0, 1, 2, 3]
    assert [gpu.device_number for gpu in seen.scan.gpus] == [3, 2, 1, 0]
    first = seen.scan.gpus[0]
    assert (first.name, first.memory_used_mb, first.memory_total_mb, first.processes) == (
        "NVIDIA H100 80GB HBM3",
        45,
        81559,
        (),
    )
    assert before - 0.1 <= seen.scan.started_at <= time.time()
    assert 0 <= seen.scan.took_s <= seen.age_s


def nvml_alone(library: Path, **keys: float) -> ValidationConfig:
    return ValidationConfig(probe="nvml", nvml_library=str(library), **keys)  # type: ignore[arg-type]


def test_the_age_goes_on_and_the_scan_is_one(node: fake_nvml.FakeNode, library: Path) -> None:
    pending = NodeProbe("n1", nvml_alone(library)).start()
    first = pending.observe()
    time.sleep(0.02)
    second = pending.observe()
    assert second.scan is first.scan
    assert second.age_s >= first.age_s + 0.02


@pytest.mark.parametrize(("used_mb", "in_use"), [(1023, False), (1024, False), (1025, True)])
def test_the_threshold_is_not_yet_use(
    node: fake_nvml.FakeNode, observe: Observe, used_mb: int, in_use: bool
) -> None:
    node.gpu(2).override_used(used_mb)
    assert observe().in_use == (uuids(node, 2) if in_use else frozenset())
    assert observe(memory_threshold_mb=used_mb - 1).in_use == uuids(node, 2)


@needs_root
def test_processes_are_named_with_their_users(node: fake_nvml.FakeNode, observe: Observe) -> None:
    with (
        fake_nvml.start_gpu_process(node.gpu(1), 8000, user="nobody", name="train.py") as one,
        fake_nvml.start_gpu_process(node.gpu(1), 300, user="daemon", name="pytorch") as two,
    ):
        two.occupy(node.gpu(3), 100)
        seen = observe()
        by_pid = {process.pid: process for process in seen.scan.gpus[1].processes}
        assert by_pid.keys() == {one.pid, two.pid}
        assert (by_pid[one.pid].user, by_pid[one.pid].uid) == ("nobody", 65534)
        assert (by_pid[one.pid].name, by_pid[one.pid].memory_mb) == ("train.py", 8000)
        assert (by_pid[two.pid].user, by_pid[two.pid].name) == ("daemon", "pytorch")
        assert [process.pid for process in seen.scan.gpus[3].processes] == [two.pid]
        assert seen.in_use == uuids(node, 1)
    assert observe().in_use == frozenset()
    assert observe().scan.gpus[1].processes == ()


def test_who_does_not_count_is_told_of(node: fake_nvml.FakeNode, library: Path) -> None:
    node.gpu(0).add_process(os.getpid(), 8000)
    own = pwd.getpwuid(os.getuid()).pw_name
    validation = replace(nvml_alone(library), ignore_users=(own,))
    assert NodeProbe("n1", validation).start().observe().ignored == {os.getpid()}


def test_a_process_in_several_lists_is_there_once_with_the_most(
    node: fake_nvml.FakeNode, observe: Observe
) -> None:
    node.gpu(0).add_process(os.getpid(), 700, kind="CGM")
    (process,) = observe().scan.gpus[0].processes
    assert (process.pid, process.memory_mb) == (os.getpid(), 700)


@pytest.mark.slow
def test_a_process_that_comes_during_the_scan_is_seen_by_its_memory(
    node: fake_nvml.FakeNode, library: Path
) -> None:
    """Given the list of processes takes its time, I expect the memory to be read after it."""
    node.inject("nvmlDeviceGetComputeRunningProcesses", delay_ms=400, gpu=0)
    pending = NodeProbe("n1", nvml_alone(library)).start()
    time.sleep(0.25)
    node.gpu(0).add_process(os.getpid(), 9000)
    assert pending.observe().in_use == uuids(node, 0)


def test_a_listed_process_that_is_gone_has_no_owner(
    node: fake_nvml.FakeNode, observe: Observe
) -> None:
    node.gpu(0).add_process(4194303, 9000, ghost=True)
    seen = observe()
    (process,) = seen.scan.gpus[0].processes
    assert (process.uid, process.user, process.name) == (None, None, None)
    assert seen.in_use == uuids(node, 0)


@pytest.mark.parametrize("kind", ["C", "G", "M"])
def test_a_process_of_unknown_memory_is_use(
    node: fake_nvml.FakeNode, observe: Observe, kind: str
) -> None:
    node.gpu(0).add_process(os.getpid(), None, kind=kind)
    assert observe().in_use == uuids(node, 0)


def test_unified_memory_is_judged_by_processes(node: fake_nvml.FakeNode, observe: Observe) -> None:
    for index in (0, 1, 2):
        node.gpu(index).set_memory_supported(False)
    # A display server and its desktop are below the threshold.
    node.gpu(1).add_process(os.getpid(), 43, kind="G")
    node.gpu(1).add_process(os.getppid(), 18, kind="G")
    node.gpu(2).add_process(os.getpid(), 1025)
    seen = observe()
    assert seen.scan.gpus[0].memory_used_mb is None
    assert [gpu.held_memory_mb for gpu in seen.scan.gpus[:3]] == [None, 61, 1025]
    assert (seen.in_use, seen.unknown) == (uuids(node, 2), frozenset())


@pytest.mark.parametrize(
    "function",
    [
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetMinorNumber",
        "nvmlDeviceGetName",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetGraphicsRunningProcesses",
        "nvmlDeviceGetMPSComputeRunningProcesses",
    ],
)
@pytest.mark.parametrize("code", [15, 999])
def test_a_gpu_that_fails_hides_no_other(
    node: fake_nvml.FakeNode, observe: Observe, function: str, code: int
) -> None:
    node.gpu(3).override_used(5000)
    node.inject(function, return_=code, gpu=2)
    seen = observe()
    assert seen.scan.fault is None
    assert [gpu.fault is None for gpu in seen.scan.gpus] == [True, True, False, True]
    assert f"NVML error {code}" in (seen.scan.gpus[2].fault or "")
    assert seen.in_use == uuids(node, 3)
    nameless = function in ("nvmlDeviceGetUUID", "nvmlDeviceGetHandleByIndex")
    assert seen.unknown == (frozenset() if nameless else uuids(node, 2))
    assert seen.scan.gpus[2].uuid == ("" if nameless else node.gpu(2).uuid)


@pytest.mark.parametrize(
    ("function", "code"),
    [("nvmlInit", 18), ("nvmlInit", 9), ("nvmlInit", 999), ("nvmlDeviceGetCount", 999)],
)
def test_a_driver_that_does_not_work_is_a_fault_of_the_scan(
    node: fake_nvml.FakeNode, observe: Observe, function: str, code: int
) -> None:
    node.inject(function, return_=code)
    seen = observe()
    assert seen.scan.gpus == ()
    assert f"NVML error {code}" in (seen.scan.fault or "")


@pytest.mark.parametrize("content", [None, b"", b"no library"])
def test_no_library_is_a_fault_of_the_scan(
    node: fake_nvml.FakeNode, observe: Observe, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "libnvidia-ml.so.1"
    if content is not None:
        path.write_bytes(content)
    seen = observe(nvml_library=str(path))
    assert seen.scan.gpus == ()
    assert str(path) in (seen.scan.fault or "")


def test_a_call_that_hangs_ends_with_the_time(
    node: fake_nvml.FakeNode, library: Path, observe: Observe
) -> None:
    node.inject("nvmlDeviceGetMemoryInfo", hang=True, gpu=1)
    validation = nvml_alone(library, scan_timeout_s=0.6)
    began = time.monotonic()
    pending = NodeProbe("n1", validation).start()
    seen = pending.observe()
    assert 0.5 < time.monotonic() - began < 20
    assert seen.scan.gpus == ()
    assert re.search(r"no answer within 0\.\d+ s", seen.scan.fault or "")
    poll_until(lambda: not Path(f"/proc/{child_of(pending)}").exists())


def child_of(pending: PendingNodeScan) -> int:
    child = pending._source_scan._child
    assert isinstance(child, source_scan.BoundedChild)
    return child._pid


def test_a_killed_child_is_a_fault_of_the_scan(node: fake_nvml.FakeNode, library: Path) -> None:
    node.inject("nvmlInit", hang=True)
    pending = NodeProbe("n1", nvml_alone(library)).start()
    os.kill(child_of(pending), signal.SIGKILL)
    seen = pending.observe()
    assert seen.scan.gpus == ()
    assert "died of SIGKILL" in (seen.scan.fault or "")


@in_a_child
@pytest.mark.parametrize("answer", [b"", b"{", b"[]", b"\xff", b'{"gpus":[{}]}', b"null"])
def test_an_answer_that_is_none_is_a_fault_of_the_scan(
    monkeypatch: pytest.MonkeyPatch, observe: Observe, answer: bytes
) -> None:
    monkeypatch.setattr(source_scan, "_read_source", lambda *_: answer)
    seen = observe()
    assert seen.scan.gpus == ()
    assert "malformed" in (seen.scan.fault or "")


@in_a_child
def test_no_room_for_a_process_is_a_fault_of_the_scan(
    monkeypatch: pytest.MonkeyPatch, observe: Observe
) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    seen = observe()
    assert seen.scan.gpus == ()
    assert "cannot start a process" in (seen.scan.fault or "")


def test_a_file_that_is_garbage_makes_its_gpu_unknown(
    node: fake_nvml.FakeNode, observe: Observe
) -> None:
    node.gpu(0).set("memory_used_mb", "many")
    node.gpu(1).set("name", "caf\u00e9")
    (node.gpu(2).path / "name").write_bytes(b"\xff\xfe\n")
    seen = observe()
    assert seen.scan.fault is None
    assert uuids(node, 0) <= seen.unknown <= uuids(node, 0, 1, 2)
    assert seen.scan.gpus[3].fault is None


def test_an_old_driver_is_read_by_its_own_calls(
    node: fake_nvml.FakeNode, observe: Observe, old_library: Path
) -> None:
    node.gpu(0).add_process(os.getpid(), 9000)
    node.gpu(1).add_process(os.getpid(), None)
    seen = observe(nvml_library=str(old_library))
    assert seen.scan.fault is None
    assert (seen.in_use, seen.unknown) == (uuids(node, 0, 1), frozenset())
    (process,) = seen.scan.gpus[0].processes
    assert (process.pid, process.memory_mb) == (os.getpid(), 9000)
    assert seen.scan.gpus[2].processes == ()


def test_an_impossible_process_makes_its_gpu_unknown(
    node: fake_nvml.FakeNode, observe: Observe
) -> None:
    node.gpu(0).add_process(4194305, 1, ghost=True)
    assert observe().unknown == uuids(node, 0)


@pytest.mark.slow
def test_many_scans_leave_nothing(node: fake_nvml.FakeNode, observe: Observe) -> None:
    def left() -> tuple[set[str], str]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        return {one.name for one in Path("/proc/self/fd").iterdir()}, children

    observe()
    before = left()
    for _ in range(50):
        assert observe().scan.fault is None
    node.inject("nvmlInit", hang=True)
    assert observe(scan_timeout_s=0.05).scan.fault is not None
    assert left() == before
