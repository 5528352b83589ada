"""MIG: each instance is a GPU of its own; what fails on one hides neither the others nor itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import fake_nvml
from canhazgpu.gpu.scan import MigDeviceNumbers
from canhazgpu.ledger.port import Observation
from canhazgpu.probe.nvml import mig_devices

Observe = Callable[..., Observation]


@pytest.fixture
def gpu(node: fake_nvml.FakeNode) -> fake_nvml.FakeGpu:
    """GPU 1, with MIG instances at places 0, 1 and 3."""
    for place in (0, 1, 3):
        node.gpu(1).add_mig(place)
    return node.gpu(1)


def test_instances_stand_in_for_their_gpu(
    node: fake_nvml.FakeNode, gpu: fake_nvml.FakeGpu, observe: Observe
) -> None:
    seen = observe()
    assert [one.display_index for one in seen.scan.gpus] == ["0", "1:0", "1:1", "1:3", "2", "3"]
    assert gpu.uuid not in seen.scan.by_uuid()
    instances = seen.scan.gpus[1:4]
    assert [one.uuid for one in instances] == [gpu.mig(place).uuid for place in (0, 1, 3)]
    for one in instances:
        assert (one.parent_uuid, one.index, one.device_number) == (gpu.uuid, 1, None)
        assert (one.memory_used_mb, one.memory_total_mb, one.fault) == (12, 9856, None)
    assert (seen.in_use, seen.unknown) == (frozenset(), frozenset())
    assert [one.parent_uuid for one in seen.scan.gpus if one.mig_index is None] == [None] * 3
    assert [one.utilization_percent for one in seen.scan.gpus] == [0, None, None, None, 0, 0]


def test_a_process_holds_its_own_instance_alone(gpu: fake_nvml.FakeGpu, observe: Observe) -> None:
    gpu.mig(1).add_process(os.getpid(), 5000)
    seen = observe()
    (process,) = seen.scan.gpus[2].processes
    assert (process.pid, process.memory_mb) == (os.getpid(), None)
    assert seen.scan.gpus[2].memory_used_mb == 5012
    assert seen.in_use == {gpu.mig(1).uuid}
    assert seen.unknown == frozenset()


def test_a_process_of_unknown_memory_holds_its_instance(
    gpu: fake_nvml.FakeGpu, observe: Observe
) -> None:
    gpu.mig(3).add_process(os.getpid(), None)
    assert observe().in_use == {gpu.mig(3).uuid}


def test_mig_without_instances_is_nothing_to_grant(
    node: fake_nvml.FakeNode, observe: Observe
) -> None:
    node.gpu(1).add_mig(0)
    (node.gpu(1).path / "mig" / "0").rename(node.gpu(1).path / "mig" / ".gone")
    seen = observe()
    assert [one.display_index for one in seen.scan.gpus] == ["0", "1", "2", "3"]
    assert seen.unknown == {node.gpu(1).uuid}
    assert "create them with 'nvidia-smi mig -cgi'" in (seen.scan.gpus[1].fault or "")


def test_what_the_parent_does_not_tell_hides_no_instance(
    gpu: fake_nvml.FakeGpu, node: fake_nvml.FakeNode, observe: Observe
) -> None:
    for function in (
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetMinorNumber",
        "nvmlDeviceGetName",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetComputeMode",
    ):
        node.inject(function, return_=4, gpu=1)
    seen = observe()
    assert [one.display_index for one in seen.scan.gpus] == ["0", "1:0", "1:1", "1:3", "2", "3"]
    assert [one.fault for one in seen.scan.gpus] == [None] * 6


@pytest.mark.parametrize(
    ("function", "identified"),
    [
        ("nvmlDeviceGetUUID", False),
        ("nvmlDeviceGetMemoryInfo", True),
        ("nvmlDeviceGetName", True),
        ("nvmlDeviceGetComputeRunningProcesses", True),
    ],
)
@pytest.mark.parametrize("code", [4, 6, 15, 999])
def test_an_instance_that_fails_hides_no_other(
    gpu: fake_nvml.FakeGpu,
    node: fake_nvml.FakeNode,
    observe: Observe,
    function: str,
    identified: bool,
    code: int,
) -> None:
    gpu.mig(3).add_process(os.getpid(), 5000)
    node.inject(function, return_=code, gpu=gpu.mig(1))
    seen = observe()
    assert [one.display_index for one in seen.scan.gpus] == ["0", "1:0", "1:1", "1:3", "2", "3"]
    assert [one.fault is None for one in seen.scan.gpus] == [True, True, False, True, True, True]
    assert f"NVML error {code}" in (seen.scan.gpus[2].fault or "")
    assert seen.in_use == {gpu.mig(3).uuid}
    assert seen.unknown == ({gpu.mig(1).uuid} if identified else frozenset())


def test_a_place_that_cannot_be_opened_is_told(
    gpu: fake_nvml.FakeGpu, node: fake_nvml.FakeNode, observe: Observe
) -> None:
    node.inject("nvmlDeviceGetMigDeviceHandleByIndex", return_=999, gpu=1)
    seen = observe()
    broken = [one for one in seen.scan.gpus if one.mig_index is not None]
    assert [one.uuid for one in broken] == [""] * 7
    assert all("NVML error 999" in (one.fault or "") for one in broken)


def test_the_parents_health_is_each_instances(gpu: fake_nvml.FakeGpu, observe: Observe) -> None:
    gpu.set_health(remap_pending=1, compute_mode=2)
    told = [one.health for one in observe().scan.gpus]
    assert [one is not None and one.remap_pending for one in told] == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]
    assert [one.compute_mode for one in told if one is not None].count("prohibited") == 3


@pytest.mark.parametrize("code", [4, 999])
def test_a_gpu_that_does_not_tell_whether_it_is_in_mig_mode_is_unknown(
    node: fake_nvml.FakeNode, gpu: fake_nvml.FakeGpu, observe: Observe, code: int
) -> None:
    node.inject("nvmlDeviceGetMigMode", return_=code, gpu=1)
    assert observe().unknown == {gpu.uuid}


@pytest.mark.parametrize("code", [3, 13])
def test_a_gpu_that_knows_no_mig_is_read_as_it_is(
    node: fake_nvml.FakeNode, observe: Observe, code: int
) -> None:
    node.gpu(1).override_used(5000)
    node.inject("nvmlDeviceGetMigMode", return_=code)
    seen = observe()
    assert [one.fault for one in seen.scan.gpus] == [None] * 4
    assert seen.in_use == {node.gpu(1).uuid}


def test_nvidia_smi_cannot_tell_and_says_so(
    node: fake_nvml.FakeNode, gpu: fake_nvml.FakeGpu, observe_smi: Observe
) -> None:
    gpu.mig(0).add_process(os.getpid(), 5000)
    seen = observe_smi()
    assert [one.display_index for one in seen.scan.gpus] == ["0", "1", "2", "3"]
    assert seen.unknown == {gpu.uuid}
    assert (seen.scan.gpus[1].fault or "").startswith("MIG needs NVML")


@pytest.fixture
def driver_proc(
    node: fake_nvml.FakeNode, place: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Path]:
    """Writes what the driver shows of the instances that there are now."""
    monkeypatch.setattr(mig_devices, "DRIVER_PROC", place / "proc")
    return lambda: node.write_mig_proc(place / "proc")


# The fourth GPU of NVML is /dev/nvidia0 there, and the second /dev/nvidia2.
FIRST_OF_GPU_2 = 3 + 2 * 15 * 9


def numbers_by_place(seen: Observation) -> dict[str, MigDeviceNumbers | None]:
    return {one.display_index: one.mig_devices for one in seen.scan.gpus}


def test_an_instance_has_the_numbers_of_its_device_files(
    node: fake_nvml.FakeNode, driver_proc: Callable[[], Path], observe: Observe
) -> None:
    node.gpu(1).add_mig(0, gpu_instance_id=7, profile="1g.5gb")
    node.gpu(1).add_mig(1, gpu_instance_id=1, compute_instance_id=0, profile="1c.3g.20gb")
    node.gpu(1).add_mig(2, gpu_instance_id=1, compute_instance_id=1, profile="1c.3g.20gb")
    driver_proc()
    seen = observe()
    assert numbers_by_place(seen) == {
        "0": None,
        "1:0": MigDeviceNumbers(2, FIRST_OF_GPU_2 + 63, FIRST_OF_GPU_2 + 64),
        "1:1": MigDeviceNumbers(2, FIRST_OF_GPU_2 + 9, FIRST_OF_GPU_2 + 10),
        "1:2": MigDeviceNumbers(2, FIRST_OF_GPU_2 + 9, FIRST_OF_GPU_2 + 11),
        "2": None,
        "3": None,
    }
    assert [one.mig_profile for one in seen.scan.gpus[1:4]] == [
        "1g.5gb",
        "1c.3g.20gb",
        "1c.3g.20gb",
    ]


@pytest.mark.parametrize("lost", ["nvidia-caps", "nvidia"])
def test_either_of_the_drivers_two_files_suffices(
    gpu: fake_nvml.FakeGpu, driver_proc: Callable[[], Path], observe: Observe, lost: str
) -> None:
    root = driver_proc()
    (root / lost).rename(root / f"{lost}.gone")
    assert numbers_by_place(observe())["1:0"] == MigDeviceNumbers(
        2, FIRST_OF_GPU_2 + 9, FIRST_OF_GPU_2 + 10
    )


@pytest.mark.parametrize("text", ["", "DeviceFileMinor: 12\n", "DeviceFileMinor: x\n"])
def test_numbers_that_contradict_each_other_are_not_known(
    gpu: fake_nvml.FakeGpu, driver_proc: Callable[[], Path], observe: Observe, text: str
) -> None:
    root = driver_proc()
    shown = root / "nvidia" / "capabilities" / "gpu2" / "mig" / "gi1" / "ci0" / "access"
    shown.write_text(text)
    known = FIRST_OF_GPU_2 + 10 if "12" not in text else None
    assert numbers_by_place(observe())["1:0"] == MigDeviceNumbers(2, FIRST_OF_GPU_2 + 9, known)


@pytest.mark.slow
def test_without_the_drivers_files_the_numbers_are_not_known(
    gpu: fake_nvml.FakeGpu, driver_proc: Callable[[], Path], observe: Observe
) -> None:
    seen = observe()
    assert numbers_by_place(seen)["1:0"] == MigDeviceNumbers(2)
    assert [one.fault for one in seen.scan.gpus] == [None] * 6


@pytest.mark.parametrize(
    ("function", "known"),
    [
        ("nvmlDeviceGetMinorNumber", MigDeviceNumbers()),
        ("nvmlDeviceGetGpuInstanceId", MigDeviceNumbers(2)),
        ("nvmlDeviceGetComputeInstanceId", MigDeviceNumbers(2)),
    ],
)
@pytest.mark.parametrize("code", [3, 13, 999])
def test_a_number_that_nvml_does_not_tell_hides_no_instance(
    node: fake_nvml.FakeNode,
    gpu: fake_nvml.FakeGpu,
    driver_proc: Callable[[], Path],
    observe: Observe,
    function: str,
    known: MigDeviceNumbers,
    code: int,
) -> None:
    driver_proc()
    node.inject(function, return_=code)
    seen = observe()
    assert [one.fault for one in seen.scan.gpus][1:4] == [None] * 3
    assert numbers_by_place(seen)["1:0"] == known
