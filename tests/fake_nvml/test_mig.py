"""GPUs in MIG mode."""

from __future__ import annotations

import os


def test_mig_devices(nvml, node):
    assert nvml("p.nvmlDeviceGetMigMode(handle(0))") == [0, 0]
    assert nvml("p.nvmlDeviceGetMaxMigDeviceCount(handle(0))") == 0
    first, second = node.gpu(0).add_mig(0, memory_total_mb=5000), node.gpu(0).add_mig(1)
    assert nvml("p.nvmlDeviceGetMigMode(handle(0))") == [1, 1]
    assert nvml("p.nvmlDeviceGetMaxMigDeviceCount(handle(0))") == 7

    mig = "p.nvmlDeviceGetMigDeviceHandleByIndex(handle(0), {})".format
    assert nvml(f"p.nvmlDeviceGetUUID({mig(0)})") == first.uuid
    assert first.uuid.startswith("MIG-")
    assert nvml(f"p.nvmlDeviceGetUUID({mig(1)})") == second.uuid
    assert nvml(mig(2)) == {"error": 6}
    assert nvml(f"p.nvmlDeviceGetMemoryInfo({mig(0)}).total >> 20") == 5000
    assert nvml(f"p.nvmlDeviceGetGpuInstanceId({mig(1)})") == 2
    assert nvml(f"p.nvmlDeviceIsMigDeviceHandle({mig(1)}).value") == 1
    parent = f"p.nvmlDeviceGetDeviceHandleFromMigDeviceHandle({mig(1)})"
    assert nvml(f"p.nvmlDeviceGetUUID({parent})") == node.gpu(0).uuid
    assert nvml(f"p.nvmlDeviceGetUUID(p.nvmlDeviceGetHandleByUUID('{second.uuid}'))") == second.uuid
    assert nvml(f"p.nvmlDeviceGetMinorNumber({mig(1)})") == {"error": 3}


def test_no_processs_memory_is_known_under_mig(nvml, node):
    node.gpu(0).add_mig(0)
    node.gpu(0).add_mig(1).add_process(os.getpid(), 300)
    listed = (
        "[[x.pid, x.usedGpuMemory, x.gpuInstanceId]"
        " for x in p.nvmlDeviceGetComputeRunningProcesses({})]"
    ).format
    mig = "p.nvmlDeviceGetMigDeviceHandleByIndex(handle(0), {})".format
    assert nvml(listed(mig(0))) == []
    assert nvml(listed(mig(1))) == [[os.getpid(), None, 2]]
    assert nvml(listed("handle(0)")) == [[os.getpid(), None, 2]]
    assert nvml(f"used_mb({mig(1)})") == 312
    assert nvml("used_mb(handle(0))") == 345

    node.inject("nvmlDeviceGetMemoryInfo", return_=4, gpu=node.gpu(0))
    assert nvml("used_mb(handle(0))") == {"error": 4}
    assert nvml(f"used_mb({mig(1)})") == 312

    node.clear_injections()
    node.gpu(0).remove_mig()
    assert nvml("p.nvmlDeviceGetMigMode(handle(0))") == [0, 0]
    assert nvml("pids(handle(0))") == []
