"""nvidia-smi as a program: how often it is called, with what, and what it does wrong."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import fake_nvml
from canhazgpu.ledger.port import Observation

pytestmark = pytest.mark.slow

Observe = Callable[..., Observation]


@pytest.fixture
def program(place: Path) -> Callable[[str], str]:
    """Writes a shell script in nvidia-smi's place and returns its path."""

    def write(script: str) -> str:
        path = place / "script"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return write


@pytest.fixture
def counted(program: Callable[[str], str], smi: Path, place: Path) -> tuple[str, Path]:
    """nvidia-smi, and the file with a line for each of its calls."""
    calls = place / "calls"
    return program(f'echo "$@" >> {calls}\nexec {smi} "$@"'), calls


def test_a_scan_takes_two_calls_the_processes_first(
    node: fake_nvml.FakeNode, observe_smi: Observe, counted: tuple[str, Path]
) -> None:
    """A process that starts in between is then seen by the memory that it holds."""
    node.gpu(0).add_process(os.getpid(), 9000)
    seen = observe_smi(nvidia_smi=counted[0])
    assert seen.in_use == {node.gpu(0).uuid}
    first, second = counted[1].read_text().splitlines()
    assert first.startswith("--query-compute-apps=pid,gpu_uuid,used_memory --format=")
    assert second.startswith("--query-gpu=index,uuid,pci.bus_id,memory.used,memory.total,")
    assert second.endswith(",name --format=csv,noheader,nounits")


RECENT = ["gpu_recovery_action", "remapped_rows.pending", "remapped_rows.failure"]
OLD = [*RECENT, "mig.mode.current"]
OLDEST = [*OLD, "retired_pages.pending", "ecc.errors.uncorrected.volatile.total", "compute_mode"]


@pytest.mark.parametrize(
    ("lacks", "calls"),
    [([], 2), (["gpu_recovery_action"], 3), (RECENT, 3), (OLD, 3), (OLDEST, 4)],
)
def test_a_field_that_is_refused_costs_a_call_and_not_the_scan(
    node: fake_nvml.FakeNode,
    observe_smi: Observe,
    counted: tuple[str, Path],
    lacks: list[str],
    calls: int,
) -> None:
    node.gpu(1).override_used(5000)
    node.gpu(2).set_health(compute_mode=2, retired_pending=1)
    node.inject("nvidia-smi", lacks=lacks)
    seen = observe_smi(nvidia_smi=counted[0])
    assert [gpu.fault for gpu in seen.scan.gpus] == [None] * 4
    assert seen.in_use == {node.gpu(1).uuid}
    health = seen.scan.gpus[2].health
    assert health is not None
    assert health.recovery_action == ("none" if not lacks else None)
    assert health.compute_mode == (None if "compute_mode" in lacks else "prohibited")
    assert len(counted[1].read_text().splitlines()) == calls


def test_utilization_that_is_refused_costs_no_other_field(
    node: fake_nvml.FakeNode, observe_smi: Observe, counted: tuple[str, Path]
) -> None:
    node.gpu(2).set_health(compute_mode=2)
    node.inject("nvidia-smi", lacks=["utilization.gpu"])
    seen = observe_smi(nvidia_smi=counted[0])
    assert [gpu.utilization_percent for gpu in seen.scan.gpus] == [None] * 4
    health = seen.scan.gpus[2].health
    assert health is not None
    assert (health.recovery_action, health.compute_mode) == ("none", "prohibited")
    assert len(counted[1].read_text().splitlines()) == 3


@pytest.mark.parametrize(("version", "calls"), [("535.104.05", 2), ("570.86", 2), ("x", 2)])
def test_an_old_driver_is_not_asked_for_what_came_later(
    node: fake_nvml.FakeNode,
    observe_smi: Observe,
    counted: tuple[str, Path],
    place: Path,
    version: str,
    calls: int,
) -> None:
    (place / "version").write_text(f"{version}\n")
    if version.startswith("535"):
        node.inject("nvidia-smi", lacks=RECENT)
    seen = observe_smi(nvidia_smi=counted[0])
    assert [gpu.fault for gpu in seen.scan.gpus] == [None] * 4
    assert len(counted[1].read_text().splitlines()) == calls


def test_a_field_that_cannot_be_done_without_is_a_fault(
    node: fake_nvml.FakeNode, observe_smi: Observe
) -> None:
    node.inject("nvidia-smi", lacks=["memory.used"])
    assert 'Field "memory.used" is not a valid field' in (observe_smi().scan.fault or "")


def test_the_environment_is_clean(
    node: fake_nvml.FakeNode,
    observe_smi: Observe,
    program: Callable[[str], str],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    observe_smi(nvidia_smi=program(f"env > {place}/env; pwd >> {place}/env; exit 1"))
    told = set((place / "env").read_text().splitlines())
    assert told - {"PWD=/", "SHLVL=0", "_=/usr/bin/env", "OLDPWD=/"} == {
        "LC_ALL=C",
        "PATH=/usr/bin:/bin",
        "/",
    }


FAILURES = [
    ("echo 'Failed to initialize NVML: GPU access blocked'; exit 17", "the cgroup"),
    ("echo 'Failed to initialize NVML: GPU access blocked'; exit 17", "GPU access blocked"),
    ("exit 9", "nvidia-smi failed and said nothing (exit status 9): load the driver"),
    ("echo oops >&2; exit 255", "(exit status 255): an error inside the driver"),
    ("echo 'Field X'; exit 2", "Field X (exit status 2): this nvidia-smi does not know"),
    ("exit 3", "(exit status 3): a GPU does not offer"),
    ("exit 4", "(exit status 4): scan as root"),
    ("exit 6", "(exit status 6): it did not find a GPU"),
    ("exit 8", "(exit status 8): check the power cables"),
    ("exit 10", "(exit status 10): a GPU's interrupts"),
    ("exit 12", "(exit status 12): NVML's library was not found"),
    ("exit 13", "(exit status 13): NVML's library is of another version"),
    ("exit 14", "(exit status 14): have the GPU replaced"),
    ("echo 'a GPU is broken'; exit 14", "a GPU is broken (exit status 14): have the GPU replaced"),
    ("echo '12, GPU-a, 5'; exit 15", "(exit status 15): reboot the node"),
    ("kill -SEGV $$", "ended by signal 11"),
    ("exit 0", "nvidia-smi printed nothing"),
    ("printf '0, GPU-a'", "output is cut off"),
    ("echo garbage", "a line that is not understood"),
    ("printf '\\000\\000\\n'", "a line that is not understood"),
    ("printf '1, GPU-a, 5\\033[2J\\n'", "a line that is not understood"),
    ("echo '[Not Found], [N/A], [N/A]'", "but not on which GPU"),
    ("echo 'x, GPU-a, 5'", "a process that is not understood"),
    ("echo '12, GPU-a, 5 MiB'", "a process that is not understood"),
    ("echo '12, GPU-a, -5'", "a process that is not understood"),
    ("yes '1, GPU-a, 5'", "more than a scan can hold"),
    ("exec /nowhere", "nvidia-smi failed and said nothing"),
]


@pytest.mark.parametrize(("script", "text"), FAILURES)
def test_a_program_that_fails_tells_nothing(
    node: fake_nvml.FakeNode,
    observe_smi: Observe,
    program: Callable[[str], str],
    script: str,
    text: str,
) -> None:
    seen = observe_smi(nvidia_smi=program(script))
    assert seen.scan.gpus == ()
    assert text in (seen.scan.fault or "")


@pytest.mark.parametrize(
    "rows",
    [
        "",
        "0, GPU-a, 00000000:10:00.0",
        "0, GPU-a, 00000000:10:00.0, 45, 81559, NVIDIA H100",
        "\n",
    ],
)
def test_the_second_call_may_fail_too(
    node: fake_nvml.FakeNode, observe_smi: Observe, program: Callable[[str], str], rows: str
) -> None:
    script = f"case $1 in *apps*) ;; *) echo '{rows}' ;; esac"
    seen = observe_smi(nvidia_smi=program(script))
    assert seen.scan.gpus == ()
    assert "run 'nvidia-smi' by hand" in (seen.scan.fault or "")


UUIDS = ("GPU-aaaaaaa0-0000-0000-0000-000000000000", "GPU-aaaaaaa1-0000-0000-0000-000000000000")
ROWS = [
    f"{index}, {uuid}, 00000000:0{index}:00.0, 45, 81559, 0, "
    "Default, 0, No, Disabled, No, No, None, A"
    for index, uuid in enumerate(UUIDS)
]
WARNING = "WARNING: infoROM is corrupted at gpu 0000:01:00.0"


def two_gpus(processes: str, gpus: str) -> str:
    return f"case $1 in *apps*) {processes} ;; *) printf '%s\\n' {gpus} ;; esac"


@pytest.mark.parametrize(
    "script",
    [
        two_gpus("exit 14", f"'{ROWS[0]}' '{ROWS[1]}' '{WARNING}'; exit 14"),
        two_gpus("exit 0", f"'{ROWS[0]}' '{ROWS[1]}' '{WARNING}'; exit 14"),
        two_gpus("exit 0", f"'{ROWS[0]}' '{ROWS[1]}' '' '{WARNING}'; exit 14"),
        two_gpus("exit 0", f"'{WARNING}' '{ROWS[0]}' '{ROWS[1]}'; exit 14"),
        two_gpus("exit 0", f"'{ROWS[0]}' '{ROWS[1]}' '{WARNING}'; exit 0"),
        two_gpus(f"echo '{WARNING}'; exit 14", f"'{ROWS[0]}' '{ROWS[1]}'; exit 14"),
        two_gpus(
            f"echo '7, {UUIDS[0]}, 5'; exit 14", f"'{ROWS[0]}' '{ROWS[1]}' '{WARNING}'; exit 14"
        ),
    ],
)
def test_of_a_corrupted_inforom_only_its_gpu_is_in_doubt(
    node: fake_nvml.FakeNode, observe_smi: Observe, program: Callable[[str], str], script: str
) -> None:
    seen = observe_smi(nvidia_smi=program(script))
    assert (seen.scan.fault, seen.in_use, seen.unknown) == (None, frozenset(), {UUIDS[1]})
    assert [gpu.fault for gpu in seen.scan.gpus] == [
        None,
        "infoROM is corrupted (exit status 14): have the GPU replaced",
    ]


@pytest.mark.parametrize(
    "script",
    [
        # No warning says which GPU it is.
        two_gpus("exit 14", f"'{ROWS[0]}' '{ROWS[1]}'; exit 0"),
        two_gpus("exit 0", f"'{ROWS[0]}' '{ROWS[1]}'; exit 14"),
        # The GPU is not among the rows.
        two_gpus("exit 0", f"'{ROWS[0]}' '{WARNING}'; exit 14"),
        # The rows are not complete.
        two_gpus("exit 0", f"'{ROWS[0]}' '1, {UUIDS[1]}' '{WARNING}'; exit 14"),
        two_gpus("exit 0", f"'{WARNING}'; exit 14"),
        two_gpus("exit 0", f"'{ROWS[0]}' '{ROWS[1]}' '{WARNING}'; exit 15"),
    ],
)
def test_an_inforom_of_no_certain_gpu_puts_all_in_doubt(
    node: fake_nvml.FakeNode, observe_smi: Observe, program: Callable[[str], str], script: str
) -> None:
    seen = observe_smi(nvidia_smi=program(script))
    assert seen.scan.gpus == ()
    assert re.search(r"\(exit status 1[45]\): ", seen.scan.fault or "")


@pytest.mark.parametrize(("uuid", "whole"), [("GPU-gone", True), ("MIG-part", False)])
def test_a_process_on_a_gpu_that_is_not_listed(
    node: fake_nvml.FakeNode,
    observe_smi: Observe,
    program: Callable[[str], str],
    uuid: str,
    whole: bool,
) -> None:
    """It could be on any; a MIG instance's GPU is a fault of its own."""
    row = "0, GPU-a, 0:10:00.0, 45, 81559, 0, Default, 0, No, Disabled, No, No, None, H100"
    seen = observe_smi(
        nvidia_smi=program(f"case $1 in *apps*) echo '1, {uuid}, 9' ;; *) echo '{row}' ;; esac")
    )
    assert ("a process on an unknown GPU" in (seen.scan.fault or "")) is whole
    assert [gpu.uuid for gpu in seen.scan.gpus] == ([] if whole else ["GPU-a"])


@pytest.mark.parametrize(
    ("content", "mode", "text"),
    [
        (None, 0, "No such file or directory"),
        ("#!/bin/sh\n", 0o644, "Permission denied"),
        ("\x7fELF", 0o755, "Exec format error"),
    ],
)
def test_a_program_that_cannot_run(
    node: fake_nvml.FakeNode,
    observe_smi: Observe,
    place: Path,
    content: str | None,
    mode: int,
    text: str,
) -> None:
    path = place / "broken"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    seen = observe_smi(nvidia_smi=str(path))
    assert seen.scan.gpus == ()
    assert f"{path}: {text}: correct validation.nvidia_smi" in (seen.scan.fault or "")


@pytest.mark.parametrize(
    "script",
    [
        "sleep 300",
        "sleep 300 & wait",
        "sleep 300 & exit 0",
        "exec >&-; sleep 300",
        "trap '' TERM INT HUP; sleep 300",
        "yes '1, GPU-a, 5' | head -5; sleep 300",
    ],
)
def test_a_program_that_hangs_ends_with_all_its_processes(
    node: fake_nvml.FakeNode,
    observe_smi: Observe,
    program: Callable[[str], str],
    place: Path,
    script: str,
) -> None:
    path = program(script.replace("sleep", str(place / "sleep-of-this-test")))
    (place / "sleep-of-this-test").symlink_to("/bin/sleep")
    began = time.monotonic()
    seen = observe_smi(nvidia_smi=path, scan_timeout_s=0.5)
    assert 0.4 < time.monotonic() - began < 20
    assert re.search(r"no answer within 0\.\d+ s", seen.scan.fault or "")
    give_up = time.monotonic() + 20
    while running(str(place)):
        assert time.monotonic() < give_up, running(str(place))
        time.sleep(0.02)


def running(text: str) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            line = (process / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if process.name.isdigit() and text in line:
            found.append(line)
    return found


def test_a_lost_gpu_without_a_handle_is_a_fault_of_the_scan(
    node: fake_nvml.FakeNode, observe_smi: Observe
) -> None:
    """nvidia-smi gives up there; its exit status is trusted, not what it printed before."""
    node.inject("nvmlDeviceGetHandleByIndex", return_=15, gpu=2)
    seen = observe_smi()
    assert seen.scan.gpus == ()
    assert "Unable to determine the device handle for GPU" in (seen.scan.fault or "")
    assert "(exit status 15): reboot the node" in (seen.scan.fault or "")


@pytest.mark.parametrize("computing_mb", [0, 18])
def test_unified_memory_without_known_use_is_not_for_nvidia_smi_to_tell(
    node: fake_nvml.FakeNode, observe_smi: Observe, computing_mb: int
) -> None:
    """A process that only draws would not be seen."""
    node.gpu(1).set_memory_supported(False)
    node.gpu(1).add_process(os.getpid(), None, kind="G")
    if computing_mb:
        node.gpu(1).add_process(os.getppid(), computing_mb)
    seen = observe_smi()
    assert seen.unknown == {node.gpu(1).uuid}
    assert "only NVML tells of every process" in (seen.scan.gpus[1].fault or "")


def test_device_numbers_are_the_kernel_modules(
    node: fake_nvml.FakeNode, observe_smi: Observe, place: Path
) -> None:
    assert [gpu.device_number for gpu in observe_smi().scan.gpus] == [None] * 4
    node.gpu(1).set("pci_bus_id", "00010000:AF:00.0")
    node.write_driver_proc(place / "gpus")
    (place / "gpus" / "0000:10:00.0" / "information").write_text("Device Minor: many\n")
    (place / "gpus" / "0000:12:00.0" / "information").unlink()
    assert [gpu.device_number for gpu in observe_smi().scan.gpus] == [None, None, None, 0]


def test_a_domain_is_one_however_it_is_written(
    node: fake_nvml.FakeNode, observe_smi: Observe, place: Path
) -> None:
    node.gpu(0).set("pci_bus_id", "0000A001:AF:00.0")
    node.write_driver_proc(place / "gpus")
    assert (place / "gpus" / "a001:af:00.0").is_dir()
    assert [gpu.device_number for gpu in observe_smi().scan.gpus] == [3, 2, 1, 0]
