"""What both probes tell alike, on the same simulated GPUs: one suite, run over each."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plugins.fast_set import first_and_variants

import fake_nvml
from canhazgpu.gpu.scan import GpuHealth, GpuReading
from canhazgpu.ledger.port import Observation

Look = Callable[..., Observation]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")


@pytest.fixture(params=first_and_variants(["nvml", "nvidia-smi"]))
def source(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def look(source: str, observe: Look, observe_smi: Look) -> Look:
    return observe if source == "nvml" else observe_smi


def in_use(seen: Observation, node: fake_nvml.FakeNode) -> list[int]:
    return [index for index, gpu in enumerate(node.gpus) if gpu.uuid in seen.in_use]


def unknown(seen: Observation, node: fake_nvml.FakeNode) -> list[int]:
    return [index for index, gpu in enumerate(node.gpus) if gpu.uuid in seen.unknown]


def test_idle_gpus(node: fake_nvml.FakeNode, look: Look, source: str, place: Path) -> None:
    node.write_driver_proc(place / "gpus")
    seen = look()
    assert (seen.scan.fault, seen.scan.source, seen.scan.node) == (None, source, "n1")
    healthy = GpuHealth("none", False, False, None, 0, "default")
    assert seen.scan.gpus == tuple(
        GpuReading(
            index=index,
            uuid=gpu.uuid,
            device_number=3 - index,
            name=fake_nvml.DEFAULT_NAME,
            memory_used_mb=45,
            memory_total_mb=81559,
            health=healthy,
            cuda_index=index,
            utilization_percent=0,
        )
        for index, gpu in enumerate(node.gpus)
    )
    assert (seen.in_use, seen.unknown) == (frozenset(), frozenset())


@needs_root
def test_a_gpu_of_several_users(node: fake_nvml.FakeNode, look: Look) -> None:
    with (
        fake_nvml.start_gpu_process(node.gpu(1), 8000, user="nobody", name="train.py") as one,
        fake_nvml.start_gpu_process(node.gpu(1), 300, user="daemon", name="pytorch") as two,
    ):
        seen = look()
        told = {
            process.pid: (process.user, process.name, process.memory_mb)
            for process in seen.scan.gpus[1].processes
        }
        assert told == {
            one.pid: ("nobody", "train.py", 8000),
            two.pid: ("daemon", "pytorch", 300),
        }
        assert seen.scan.gpus[1].memory_used_mb == 8345
        assert in_use(seen, node) == [1]
    assert in_use(look(), node) == []


def test_a_process_on_two_gpus(node: fake_nvml.FakeNode, look: Look) -> None:
    with fake_nvml.start_gpu_process(node.gpu(0), 2000) as process:
        process.occupy(node.gpu(3), 100)
        seen = look()
        held = [[(one.pid, one.memory_mb) for one in gpu.processes] for gpu in seen.scan.gpus]
        assert held == [[(process.pid, 2000)], [], [], [(process.pid, 100)]]
        assert in_use(seen, node) == [0]


def test_the_processes_are_in_order(node: fake_nvml.FakeNode, look: Look) -> None:
    for pid in (os.getpid(), 1, os.getppid()):
        node.gpu(0).add_process(pid, 10)
    pids = [process.pid for process in look().scan.gpus[0].processes]
    assert pids == sorted({1, os.getpid(), os.getppid()})


@pytest.mark.parametrize(("used_mb", "used"), [(1024, False), (1025, True)])
def test_memory_without_a_process(
    node: fake_nvml.FakeNode, look: Look, used_mb: int, used: bool
) -> None:
    node.gpu(2).override_used(used_mb)
    assert in_use(look(), node) == ([2] if used else [])


@pytest.mark.parametrize("kind", ["C", "M", "CG"])
def test_a_process_without_memory(node: fake_nvml.FakeNode, look: Look, kind: str) -> None:
    node.gpu(2).add_process(os.getpid(), None, kind=kind)
    seen = look()
    (process,) = seen.scan.gpus[2].processes
    assert (process.pid, process.memory_mb) == (os.getpid(), None)
    assert in_use(seen, node) == [2]


def test_a_process_that_is_gone(node: fake_nvml.FakeNode, look: Look) -> None:
    """As one of another pid namespace."""
    node.gpu(0).add_process(4194303, 9000, ghost=True)
    seen = look()
    (process,) = seen.scan.gpus[0].processes
    assert (process.uid, process.user, process.name) == (None, None, None)
    assert in_use(seen, node) == [0]


def test_unified_memory_with_work(node: fake_nvml.FakeNode, look: Look) -> None:
    node.gpu(1).set_memory_supported(False)
    node.gpu(1).add_process(os.getpid(), None)
    seen = look()
    assert (seen.scan.gpus[1].memory_used_mb, seen.scan.gpus[1].fault) == (None, None)
    assert in_use(seen, node) == [1]


@pytest.mark.parametrize("name", ["Tesla, the T4, and more", 'A "quoted" name', "x" * 90])
def test_names(node: fake_nvml.FakeNode, look: Look, name: str) -> None:
    node.gpu(0).set("name", name)
    seen = look()
    assert seen.scan.gpus[0].name == name
    assert (seen.scan.gpus[0].fault, seen.scan.gpus[0].memory_used_mb) == (None, 45)


def test_a_name_that_is_no_text(node: fake_nvml.FakeNode, look: Look) -> None:
    node.gpu(0).set_raw_name(b"caf\xe9 \xff")
    seen = look()
    assert seen.scan.gpus[0].name == "caf\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}"
    assert seen.scan.gpus[0].fault is None


HEALTH = [
    ({"recovery_action": 1}, GpuHealth("reset", False, False, None, 0, "default")),
    ({"recovery_action": 2}, GpuHealth("reboot", False, False, None, 0, "default")),
    ({"recovery_action": 3}, GpuHealth("drain", False, False, None, 0, "default")),
    ({"recovery_action": 4}, GpuHealth("drain and reset", False, False, None, 0, "default")),
    ({"recovery_action": 77}, GpuHealth(None, False, False, None, 0, "default")),
    ({"recovery_action": "n/a"}, GpuHealth(None, False, False, None, 0, "default")),
    ({"remap_pending": 1}, GpuHealth("none", True, False, None, 0, "default")),
    ({"remap_failure": 1}, GpuHealth("none", False, True, None, 0, "default")),
    ({"remap_pending": "n/a"}, GpuHealth("none", None, False, None, 0, "default")),
    ({"remap_pending": 7}, GpuHealth("none", None, False, None, 0, "default")),
    ({"retired_pending": 1}, GpuHealth("none", False, False, True, 0, "default")),
    ({"retired_pending": 0}, GpuHealth("none", False, False, False, 0, "default")),
    ({"ecc_uncorrected_volatile": 3}, GpuHealth("none", False, False, None, 3, "default")),
    ({"ecc_mode": 0}, GpuHealth("none", False, False, None, None, "default")),
    ({"compute_mode": 2}, GpuHealth("none", False, False, None, 0, "prohibited")),
    ({"compute_mode": 3}, GpuHealth("none", False, False, None, 0, "exclusive process")),
    ({"compute_mode": 1}, GpuHealth("none", False, False, None, 0, "exclusive thread")),
    ({"compute_mode": "n/a"}, GpuHealth("none", False, False, None, 0, None)),
]


@pytest.mark.parametrize(("fields", "expected"), HEALTH, ids=lambda one: str(one)[:40])
def test_health(
    node: fake_nvml.FakeNode, look: Look, fields: dict[str, int | str], expected: GpuHealth
) -> None:
    node.gpu(2).set_health(**fields)
    seen = look()
    assert seen.scan.gpus[2].health == expected
    assert [gpu.fault for gpu in seen.scan.gpus] == [None] * 4


@pytest.mark.parametrize(
    ("code", "step"),
    [
        (15, "GPU is lost"),
        (15, "reboot the node"),
        (4, "Insufficient Permissions"),
        (4, "scan as root"),
        (999, "Unknown Error"),
        (999, "dmesg"),
    ],
)
def test_a_gpu_that_fails_beside_healthy_ones(
    node: fake_nvml.FakeNode, look: Look, code: int, step: str
) -> None:
    node.gpu(1).override_used(9000)
    node.gpu(2).override_used(9000)
    node.inject("nvmlDeviceGetMemoryInfo", return_=code, gpu=2)
    seen = look()
    assert seen.scan.fault is None
    assert [gpu.fault is None for gpu in seen.scan.gpus] == [True, True, False, True]
    assert step in (seen.scan.gpus[2].fault or "")
    assert (in_use(seen, node), unknown(seen, node)) == ([1], [2])


@pytest.mark.parametrize("code", [3, 4, 15, 999])
def test_processes_that_are_not_told(node: fake_nvml.FakeNode, look: Look, code: int) -> None:
    node.gpu(1).add_process(os.getpid(), None)
    node.inject("nvmlDeviceGetComputeRunningProcesses", return_=code, gpu=1)
    seen = look()
    assert unknown(seen, node) == [1]
    assert [gpu.fault is None for gpu in seen.scan.gpus] == [True, False, True, True]


@pytest.mark.parametrize("function", ["nvmlDeviceGetComputeMode", "nvmlDeviceGetFieldValues"])
@pytest.mark.parametrize("code", [3, 4, 15, 999])
def test_health_that_is_not_told_is_no_fault(
    node: fake_nvml.FakeNode, look: Look, function: str, code: int
) -> None:
    node.inject(function, return_=code)
    seen = look()
    assert [gpu.fault for gpu in seen.scan.gpus] == [None] * 4
    health = seen.scan.gpus[0].health
    assert health is not None
    field = "compute_mode" if function == "nvmlDeviceGetComputeMode" else "recovery_action"
    assert getattr(health, field) is None


def test_utilization_is_the_drivers(node: fake_nvml.FakeNode, look: Look) -> None:
    node.gpu(1).set_health(utilization_gpu=87)
    node.gpu(2).set_health(utilization_gpu=100)

    assert [gpu.utilization_percent for gpu in look().scan.gpus] == [0, 87, 100, 0]


@pytest.mark.parametrize("given", ["n/a", 101, 4294967295, "x"])
def test_utilization_that_cannot_be_is_unknown_and_no_fault(
    node: fake_nvml.FakeNode, look: Look, given: str | int
) -> None:
    node.gpu(1).set_health(utilization_gpu=given)
    seen = look()
    assert [gpu.utilization_percent for gpu in seen.scan.gpus] == [0, None, 0, 0]
    assert [gpu.fault for gpu in seen.scan.gpus] == [None] * 4


@pytest.mark.parametrize("code", [2, 3, 4, 13, 15, 999])
def test_utilization_that_is_not_told_makes_no_gpu_unknown(
    node: fake_nvml.FakeNode, look: Look, code: int
) -> None:
    # 13 is what a driver returns that does not know the call.
    node.inject("nvmlDeviceGetUtilizationRates", return_=code, gpu=1)
    seen = look()
    assert [gpu.utilization_percent for gpu in seen.scan.gpus] == [0, None, 0, 0]
    assert [gpu.fault for gpu in seen.scan.gpus] == [None] * 4
    assert seen.unknown == frozenset()


WHOLE_FAULTS = [
    ("nvmlInit", 9, "modprobe nvidia"),
    ("nvmlInit", 18, "the driver was updated under the running one: reboot"),
    ("nvmlInit", 4, "scan as root"),
    ("nvmlInit", 999, "dmesg"),
    ("nvmlDeviceGetCount", 999, "dmesg"),
]


@pytest.mark.parametrize(("function", "code", "step"), WHOLE_FAULTS)
def test_a_driver_that_does_not_work(
    node: fake_nvml.FakeNode, look: Look, source: str, function: str, code: int, step: str
) -> None:
    node.inject(function, return_=code)
    seen = look()
    assert (seen.scan.gpus, seen.scan.source) == ((), source)
    assert (seen.scan.fault or "").startswith(f"the GPUs could not be read: {source}: ")
    assert step in (seen.scan.fault or "")


def test_a_node_without_gpus(state: fake_nvml.FakeState, look: Look) -> None:
    state.add_node("n1", 0)
    seen = look()
    assert (seen.scan.gpus, seen.scan.fault) == ((), None)


@pytest.mark.parametrize("others", [["GPU-a", "GPU-a"], ["GPU-b", "GPU-c"]])
def test_a_uuid_of_two_gpus_is_nobodys(
    state: fake_nvml.FakeState, look: Look, others: list[str]
) -> None:
    node = state.add_node("n1", 2, uuids=others)
    seen = look()
    shared = others[0] == others[1]
    assert unknown(seen, node) == ([0, 1] if shared else [])
    text = "several GPUs have the UUID GPU-a"
    assert [text in (gpu.fault or "") for gpu in seen.scan.gpus] == [shared, shared]


@pytest.mark.parametrize("uuid", ["nonsense", "GPU-$(reboot)", "GPU-", "[N/A]"])
def test_a_uuid_that_is_none_identifies_nothing(
    state: fake_nvml.FakeState, look: Look, uuid: str
) -> None:
    state.add_node("n1", 2, uuids=[uuid, "GPU-b"])
    seen = look()
    assert [gpu.uuid for gpu in seen.scan.gpus] == ["", "GPU-b"]
    assert "UUID" in (seen.scan.gpus[0].fault or "")
    assert seen.scan.gpus[1].fault is None


@pytest.mark.parametrize("pid", [4194305, 2_000_000_000])
def test_a_pid_that_cannot_be(node: fake_nvml.FakeNode, look: Look, pid: int) -> None:
    node.gpu(0).add_process(pid, 1, ghost=True)
    seen = look()
    assert unknown(seen, node) == [0]
    assert f"process id {pid} cannot be: update the driver" in (seen.scan.gpus[0].fault or "")


@pytest.mark.parametrize("fault", [None, "hang"])
def test_nothing_is_left_of_a_scan(node: fake_nvml.FakeNode, look: Look, fault: str | None) -> None:
    def left() -> tuple[set[str], str]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        return {one.name for one in Path("/proc/self/fd").iterdir()}, children

    look()
    before = left()
    if fault:
        node.inject("nvmlInit", hang=True)
        seen = look(scan_timeout_s=0.4)
        assert re.search(r"no answer within 0\.\d+ s", seen.scan.fault or "")
        assert "dmesg" in (seen.scan.fault or "")
    else:
        assert look().scan.fault is None
    assert left() == before


@needs_root
@pytest.mark.parametrize("reads_in", ["child"], indirect=True)  # the scanner is root's
def test_not_root(node: fake_nvml.FakeNode, look: Look, as_nobody: None) -> None:
    node.gpu(0).add_process(1, 5000)
    seen = look()
    assert in_use(seen, node) == [0]
    assert [one.pid for one in seen.scan.gpus[0].processes] == [1]


@pytest.fixture
def as_nobody() -> Iterator[None]:
    os.setresgid(65534, 65534, 0)
    os.setresuid(65534, 65534, 0)
    yield
    os.setresuid(0, 0, 0)
    os.setresgid(0, 0, 0)
