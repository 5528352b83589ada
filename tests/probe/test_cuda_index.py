"""CUDA's index of each GPU: the bus's order without lost GPUs, and none where it is uncertain.

The simulated CUDA program tells which GPU each index means.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from plugins.fast_set import first_and_variants

import fake_nvml
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.gpu.scan_json import scan_from_json, scan_to_json, scan_to_published_json
from canhazgpu.ledger.port import Observation
from canhazgpu.probe.cuda_index import parse_pci_address, with_cuda_indices

pytestmark = pytest.mark.slow

Look = Callable[..., Observation]
LOST = "GPU is lost (NVML error 15): reboot the node"
BUSES = ("00000000:C1:00.0", "00000000:0F:00.0", "00000001:01:00.0", "00000000:3B:00.0")
BY_BUS = (2, 0, 3, 1)
"""CUDA's index of the GPU at each of NVML's indices, on the buses above."""


@pytest.fixture(params=first_and_variants(["nvml", "nvidia-smi"]))
def look(request: pytest.FixtureRequest, observe: Look, observe_smi: Look) -> Look:
    return observe if request.param == "nvml" else observe_smi


@pytest.fixture
def disordered(node: fake_nvml.FakeNode) -> fake_nvml.FakeNode:
    """NVML's order is not the bus's, and CUDA's own order, the fastest first, is neither."""
    for gpu, bus, speed in zip(node.gpus, BUSES, (1, 3, 2, 4), strict=True):
        gpu.set("pci_bus_id", bus)
        gpu.set("speed", speed)
    return node


def cuda_indices(seen: Observation) -> dict[str, int | None]:
    return {gpu.uuid: gpu.cuda_index for gpu in seen.scan.gpus if gpu.uuid}


def seen_by_cuda(programs: Path, node: fake_nvml.FakeNode, index: int, **environ: str) -> list[str]:
    """The UUIDs that a CUDA program sees under an index."""
    state = {"FAKE_NVML_STATE": str(node.path.parent), "FAKE_NVML_NODE": node.path.name}
    done = subprocess.run(
        [programs / "gpu-process", "--seconds", "0"],
        env={**state, "CUDA_VISIBLE_DEVICES": str(index), **environ},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return list(json.loads(done.stdout)["gpus"])


def test_the_bus_tells_the_order(
    disordered: fake_nvml.FakeNode, look: Look, programs: Path
) -> None:
    found = cuda_indices(look())

    assert tuple(found[gpu.uuid] for gpu in disordered.gpus) == BY_BUS
    for uuid, index in found.items():
        assert index is not None
        by_bus = seen_by_cuda(programs, disordered, index, CUDA_DEVICE_ORDER="PCI_BUS_ID")
        assert by_bus == [uuid]
    fastest = seen_by_cuda(programs, disordered, 0)
    assert fastest == [disordered.gpu(3).uuid]


def test_a_lost_gpu_is_not_counted(
    disordered: fake_nvml.FakeNode, observe: Look, programs: Path
) -> None:
    disordered.inject("nvmlDeviceGetHandleByIndex", return_=15, gpu=1)

    found = cuda_indices(observe())

    assert [found[disordered.gpu(index).uuid] for index in (0, 2, 3)] == [1, 2, 0]
    for uuid, index in found.items():
        assert index is not None
        order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        assert seen_by_cuda(programs, disordered, index, **order) == [uuid]


def test_a_gpu_lost_later_in_the_reading_is_not_counted(
    disordered: fake_nvml.FakeNode, look: Look
) -> None:
    disordered.inject("nvmlDeviceGetMemoryInfo", return_=15, gpu=1)

    found = cuda_indices(look())

    assert [found[gpu.uuid] for gpu in disordered.gpus] == [1, None, 2, 0]


def test_behind_a_gpu_with_another_fault_no_index_is_certain(
    disordered: fake_nvml.FakeNode, look: Look
) -> None:
    disordered.inject("nvmlDeviceGetMemoryInfo", return_=999, gpu=3)

    found = cuda_indices(look())

    assert [found[gpu.uuid] for gpu in disordered.gpus] == [None, 0, None, None]


def test_without_a_gpus_address_no_index_is_certain(
    disordered: fake_nvml.FakeNode, look: Look
) -> None:
    disordered.inject("nvmlDeviceGetPciInfo", return_=3, gpu=2)

    assert set(cuda_indices(look()).values()) == {None}


def test_beside_a_mig_gpu_no_index_is_certain(
    disordered: fake_nvml.FakeNode, observe: Look
) -> None:
    disordered.gpu(2).add_mig(0)

    assert set(cuda_indices(observe()).values()) == {None}


def reading(index: int, fault: str | None = None) -> GpuReading:
    return GpuReading(index, f"GPU-{index}", index, "H100", 0, 80000, fault=fault)


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ((None, None, None), [2, 0, 1]),
        ((None, LOST, None), [1, None, 0]),
        ((None, "[GPU is lost] by nvidia-smi", None), [1, None, 0]),
        ((LOST, LOST, LOST), [None] * 3),
        (("Unknown Error (NVML error 999)", None, None), [None, 0, 1]),
        ((None, "Unknown Error (NVML error 999)", None), [None] * 3),
        ((None, None, "Unknown Error (NVML error 999)"), [None, 0, None]),
    ],
)
def test_what_faults_leave_certain(
    faults: tuple[str | None, ...], expected: list[int | None]
) -> None:
    readings = [reading(index, fault) for index, fault in enumerate(faults)]
    addresses = {0: (1, 0, 0, 0), 1: (0, 5, 0, 0), 2: (0, 16, 0, 0)}

    assert [gpu.cuda_index for gpu in with_cuda_indices(readings, addresses)] == expected


def test_a_lost_gpu_needs_no_address() -> None:
    readings = [reading(0, LOST), reading(1)]

    found = with_cuda_indices(readings, {0: None, 1: (0, 1, 0, 0)})

    assert [gpu.cuda_index for gpu in found] == [None, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00000000:3B:00.0", (0, 0x3B, 0, 0)),
        ("0000:3b:1f.7\n", (0, 0x3B, 0x1F, 7)),
        ("10000:01:00.0", (0x10000, 1, 0, 0)),
        ("", None),
        ("[N/A]", None),
        ("3B", None),
    ],
)
def test_addresses(text: str, expected: tuple[int, ...] | None) -> None:
    assert parse_pci_address(text) == expected


def test_an_index_reaches_the_caller_and_no_other_node(
    disordered: fake_nvml.FakeNode, observe: Look
) -> None:
    scan = observe().scan

    assert scan_from_json(scan_to_json(scan)) == scan
    published = scan_to_published_json(scan)
    assert "cuda_index" not in published
    assert {gpu.cuda_index for gpu in scan_from_json(published).gpus} == {None}
