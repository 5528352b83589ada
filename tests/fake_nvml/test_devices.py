"""Which GPUs pynvml sees, and how they are identified."""

from __future__ import annotations

import shutil


def test_gpus_have_their_own_uuid_minor_and_bus(state, library, interpreter):
    node = state.add_node("n1", 3, name="Tesla T4", minors=[2, 0, 1])
    nvml = interpreter(library, state.env("n1"))
    nvml("p.nvmlInit()")

    assert nvml("p.nvmlDeviceGetCount()") == 3
    assert nvml("[p.nvmlDeviceGetMinorNumber(handle(i)) for i in range(3)]") == [2, 0, 1]
    assert nvml("[p.nvmlDeviceGetIndex(handle(i)) for i in range(3)]") == [0, 1, 2]
    uuids = nvml("[p.nvmlDeviceGetUUID(handle(i)) for i in range(3)]")
    assert uuids == [gpu.uuid for gpu in node.gpus]
    assert len(set(uuids)) == 3
    assert nvml("p.nvmlDeviceGetName(handle(0))") == "Tesla T4"
    assert nvml("[p.nvmlDeviceGetPciInfo(handle(i)).bus for i in range(3)]") == [16, 17, 18]


def test_uuids_are_the_same_each_time_and_differ_by_node(state, tmp_path):
    import fake_nvml

    again = fake_nvml.FakeState(tmp_path / "again")
    first = state.add_node("n1", 2).gpus
    assert [gpu.uuid for gpu in again.add_node("n1", 2).gpus] == [gpu.uuid for gpu in first]
    assert again.add_node("n2", 2).gpu(0).uuid != first[0].uuid


def test_handles_by_uuid_and_by_bus(nvml, node):
    by_uuid = f"p.nvmlDeviceGetIndex(p.nvmlDeviceGetHandleByUUID('{node.gpu(1).uuid}'))"
    assert nvml(by_uuid) == 1
    assert nvml("p.nvmlDeviceGetHandleByUUID('GPU-0')") == {"error": 6}
    for address in ("00000000:11:00.0", "0000:11:00.0", "11:00.0"):
        asked = f"p.nvmlDeviceGetIndex(p.nvmlDeviceGetHandleByPciBusId('{address}'.encode()))"
        assert nvml(asked) == 1
    assert nvml("p.nvmlDeviceGetHandleByPciBusId(b'junk')") == {"error": 2}
    assert nvml("handle(2)") == {"error": 2}


def test_versions_come_from_the_state(nvml, node):
    assert nvml("p.nvmlSystemGetDriverVersion()") == "570.124.06"
    node.set("driver_version", "535.54.03")
    node.set("cuda_driver_version", 12020)
    assert nvml("p.nvmlSystemGetDriverVersion()") == "535.54.03"
    assert nvml("p.nvmlSystemGetNVMLVersion()") == "12.535.54.03"
    assert nvml("p.nvmlSystemGetCudaDriverVersion()") == 12020


def test_a_gpu_that_is_removed_is_lost_and_the_next_moves_up(nvml, node):
    nvml("globals().update(kept=[handle(0), handle(1)]) or None")
    last = node.gpu(1).uuid
    node.gpu(0).remove()
    assert nvml("p.nvmlDeviceGetCount()") == 1
    assert nvml("p.nvmlDeviceGetUUID(handle(0))") == last
    assert nvml("p.nvmlDeviceGetUUID(kept[0])") == {"error": 15}
    assert nvml("p.nvmlDeviceGetIndex(kept[1])") == 0


def test_calls_need_an_init_and_init_needs_a_node(state, node, library, interpreter):
    nvml = interpreter(library, state.env("elsewhere"))
    assert nvml("p.nvmlInit()") == {"error": 9}
    assert nvml("p.nvmlDeviceGetCount()") == {"error": 1}
    nvml = interpreter(library, state.env("n1"))
    assert nvml("[p.nvmlInit(), p.nvmlInit(), p.nvmlShutdown(), p.nvmlDeviceGetCount()][3]") == 2
    assert nvml("[p.nvmlShutdown(), p.nvmlDeviceGetCount()]") == {"error": 1}
    assert nvml("p.nvmlShutdown()") == {"error": 1}


def test_the_node_comes_from_slurm_or_from_the_default(state, library, interpreter):
    for index, name in enumerate(("default", "n1", "n2")):
        state.add_node(name, index + 1)

    def count(**env):
        nvml = interpreter(library, state.env() | env)
        return nvml("[p.nvmlInit(), p.nvmlDeviceGetCount()][1]")

    assert count() == 1
    assert count(SLURMD_NODENAME="n1") == 2
    assert count(SLURMD_NODENAME="other") == 1
    assert count(SLURMD_NODENAME="n1", FAKE_NVML_NODE="n2") == 3
    state.set_default_node("n2")
    assert count() == 3


def test_the_state_lies_beside_the_library(state, node, library, interpreter, tmp_path):
    beside = tmp_path / "opt"
    beside.mkdir()
    shutil.copy(library, beside)
    shutil.copytree(state.root, beside / "state")
    linked = tmp_path / "lib" / library.name
    linked.parent.mkdir()
    linked.symlink_to(beside / library.name)
    for path in (beside / library.name, linked):
        nvml = interpreter(path, {"FAKE_NVML_NODE": "n1"})
        assert nvml("[p.nvmlInit(), p.nvmlDeviceGetCount()][1]") == 2


def test_health_fields(nvml, node):
    recovery = "p.nvmlDeviceGetFieldValues(handle(0), [230])[0]"
    assert nvml(f"[{recovery}.nvmlReturn, {recovery}.value.uiVal]") == [0, 0]
    assert nvml("p.nvmlDeviceGetRemappedRows(handle(0))") == [0, 0, 0, 0]
    assert nvml("p.nvmlDeviceGetRetiredPagesPendingStatus(handle(0))") == {"error": 3}
    ecc = "p.nvmlDeviceGetTotalEccErrors(handle(0), 1, 0)"
    assert nvml(ecc) == 0

    node.gpu(0).set_health(
        recovery_action=2,
        remap_pending=1,
        retired_pending=1,
        ecc_uncorrected_volatile=7,
        compute_mode=3,
    )
    assert nvml(f"{recovery}.value.uiVal") == 2
    assert nvml("p.nvmlDeviceGetRemappedRows(handle(0))") == [0, 0, 1, 0]
    assert nvml("p.nvmlDeviceGetRetiredPagesPendingStatus(handle(0))") == 1
    assert nvml(ecc) == 7
    assert nvml("p.nvmlDeviceGetFieldValues(handle(0), [4])[0].value.ullVal") == 7
    assert nvml("p.nvmlDeviceGetComputeMode(handle(0))") == 3

    node.gpu(0).set_health(ecc_mode=0, remap_pending="n/a", recovery_action=None)
    assert nvml(ecc) == {"error": 3}
    assert nvml("p.nvmlDeviceGetRemappedRows(handle(0))") == {"error": 3}
    assert nvml(f"{recovery}.value.uiVal") == 0
    assert nvml("p.nvmlDeviceGetFieldValues(handle(0), [9999])[0].nvmlReturn") == 3
