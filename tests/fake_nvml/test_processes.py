"""Real processes on simulated GPUs, and the memory they hold."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

import fake_nvml

NEEDS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can start another user's process"
)


def test_memory_adds_up(nvml, node):
    gpu = node.gpu(0)
    gpu.set_memory(total_mb=1000, used_mb=40, reserved_mb=60)
    gpu.add_process(os.getpid(), 300)
    gpu.add_process(os.getppid(), 100)
    v2 = "p.nvmlDeviceGetMemoryInfo(handle(0), p.nvmlMemory_v2)"
    assert nvml(f"[x >> 20 for x in ({v2}.total, {v2}.reserved, {v2}.used, {v2}.free)]") == [
        1000,
        60,
        440,
        500,
    ]
    v1 = "p.nvmlDeviceGetMemoryInfo(handle(0))"
    assert nvml(f"[x >> 20 for x in ({v1}.total, {v1}.used, {v1}.free)]") == [1000, 500, 500]
    assert nvml("used_mb(handle(1))") == 45

    gpu.override_used(700)
    assert nvml("used_mb(handle(0))") == 700
    gpu.override_used(2000)
    assert nvml(f"[{v2}.used >> 20, {v2}.free]") == [940, 0]
    gpu.override_used(None)
    gpu.clear_processes()
    assert nvml("used_mb(handle(0))") == 40


@NEEDS_ROOT
def test_processes_of_two_users_appear_and_vanish_when_killed(nvml, node):
    gpu = node.gpu(0)
    with (
        fake_nvml.start_gpu_process(gpu, 8000, user="nobody", name="train.py") as first,
        fake_nvml.start_gpu_process(gpu, 500, user="daemon") as second,
    ):
        assert nvml("pids(handle(0))") == sorted([first.pid, second.pid])
        assert nvml("used_mb(handle(0))") == 45 + 8000 + 500
        assert nvml("pids(handle(1))") == []
        assert nvml(f"p.nvmlSystemGetProcessName({first.pid})") == "train.py"
        shown = subprocess.check_output(
            ["ps", "-o", "user=,comm=", "-p", str(first.pid)], text=True
        )
        assert shown.split() == ["nobody", "train.py"]

        assert first.kill(signal.SIGKILL) == -signal.SIGKILL
        assert nvml("pids(handle(0))") == [second.pid]
        assert nvml("used_mb(handle(0))") == 545
        os.kill(second.pid, signal.SIGKILL)
        os.waitid(os.P_PID, second.pid, os.WEXITED | os.WNOWAIT)
        assert nvml("pids(handle(0))") == [], "a zombie holds no memory"
    assert nvml("used_mb(handle(0))") == 45


def test_a_process_on_two_gpus_ends_by_itself(nvml, node):
    process = fake_nvml.start_gpu_process(node.gpu(0), 100, seconds=0.3)
    process.occupy(node.gpu(1), 200)
    assert nvml("[used_mb(handle(0)), used_mb(handle(1))]") == [145, 245]
    assert process.wait(timeout_s=5) == 0
    assert not process.alive
    assert nvml("[used_mb(handle(0)), used_mb(handle(1))]") == [45, 45]


def test_kinds_unknown_memory_and_ghosts(nvml, node):
    gpu = node.gpu(0)
    gone = subprocess.Popen(["true"])
    gone.wait()
    gpu.add_process(os.getpid(), None, kind="CG")
    gpu.add_process(os.getppid(), 10, kind="M")
    gpu.add_process(gone.pid, 20)
    compute = (
        "[[x.pid, x.usedGpuMemory] for x in p.nvmlDeviceGetComputeRunningProcesses(handle(0))]"
    )
    assert nvml(compute) == [[os.getpid(), None]]
    assert nvml(compute.replace("Compute", "Graphics")) == [[os.getpid(), None]]
    assert nvml(compute.replace("Compute", "MPSCompute")) == [[os.getppid(), 10 << 20]]

    gpu.add_process(gone.pid, 20, ghost=True)
    assert [gone.pid, 20 << 20] in nvml(compute)
    gpu.remove_process(gone.pid)
    assert nvml("pids(handle(0))") == [os.getpid()]


def test_a_pid_that_was_reused_is_not_listed(nvml, node):
    start = fake_nvml.start_time(os.getpid())
    node.gpu(0).add_process(os.getpid(), 10, start=start)
    assert nvml("pids(handle(0))") == [os.getpid()]
    node.gpu(0).add_process(os.getpid(), 10, start=start - 1)
    assert nvml("pids(handle(0))") == []


def test_many_processes_and_the_older_calls(nvml, node):
    for pid in range(1_000_000, 1_000_100):
        node.gpu(0).add_process(pid, 1, ghost=True)
    assert len(nvml("pids(handle(0))")) == 100
    assert nvml("len(p.nvmlDeviceGetComputeRunningProcesses_v2(handle(0)))") == 100
    assert nvml("used_mb(handle(0))") == 145


def test_too_small_a_buffer_is_never_overrun(nvml, node):
    for pid in (1_000_000, 1_000_001):
        node.gpu(0).add_process(pid, 1, ghost=True)
    nvml("globals().update(lib=p.nvmlLib, count=ctypes.c_uint(1), room=(ctypes.c_ulonglong * 8)())")
    call = "lib.nvmlDeviceGetComputeRunningProcesses_v3(handle(0), ctypes.byref(count), room)"
    assert nvml(call) == 7
    assert nvml("[count.value, list(room)]") == [2, [0] * 8]
    assert nvml("globals().update(text=ctypes.create_string_buffer(b'x' * 10, 10))") is None
    assert nvml("lib.nvmlDeviceGetName(handle(0), text, 9)") == 7
    assert nvml("text.raw.decode()") == "x" * 10


def test_a_gpu_with_unified_memory_has_processes_but_no_amounts(nvml, node):
    node.gpu(0).set_memory_supported(False)
    node.gpu(0).add_process(os.getpid(), 100)
    assert nvml("used_mb(handle(0))") == {"error": 3}
    assert nvml("p.nvmlDeviceGetMemoryInfo(handle(0))") == {"error": 3}
    assert nvml("pids(handle(0))") == [os.getpid()]
    node.gpu(0).set_memory_supported(True)
    assert nvml("used_mb(handle(0))") == 145
