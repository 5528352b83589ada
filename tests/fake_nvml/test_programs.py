"""gpu-process and nvidia-smi."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import fake_nvml

pytestmark = pytest.mark.slow

NEEDS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can start another user's process"
)


@pytest.fixture
def hold(library, state):
    """Starts gpu-process on node n1; gives the process and the first line it printed."""
    started = []

    def start(*arguments, user=None, **env):
        process = subprocess.Popen(
            [library.parent / "gpu-process", *arguments],
            env={"PATH": "/usr/bin:/bin", **state.env("n1"), **env},
            user=user,
            group=None if user is None else "nogroup",
            extra_groups=None if user is None else [],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, json.loads(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def four(state):
    return state.add_node("n1", 4)


@pytest.fixture
def seen(run_program, four):
    """Which GPUs a program sees, by index, under a value of CUDA_VISIBLE_DEVICES."""
    uuids = [gpu.uuid for gpu in four.gpus]

    def look(value=None, **env):
        given = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
        done = run_program("gpu-process", "--seconds", "0", **given, **env)
        assert done.returncode == (0 if json.loads(done.stdout)["gpus"] else 3)
        return [uuids.index(uuid) for uuid in json.loads(done.stdout)["gpus"]]

    return look


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("2,0", [2, 0]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,9,2", [1]),
        ("1,-1,2", [1]),
        ("1,1", [1]),
        ("GPU-", []),
    ],
)
def test_visible_devices_by_index(seen, value, expected):
    assert seen(value, CUDA_DEVICE_ORDER="PCI_BUS_ID") == expected
    assert seen(value) == expected


def test_visible_devices_by_uuid(seen, four):
    assert seen(f"{four.gpu(3).uuid},{four.gpu(1).uuid[:12]}") == [3, 1]
    assert seen(f"2,{four.gpu(0).uuid}x") == [2]


def test_visible_mig_devices(run_program, four):
    first, second = four.gpu(1).add_mig(0), four.gpu(1).add_mig(1)

    def uuids(value):
        done = run_program("gpu-process", "--seconds", "0", CUDA_VISIBLE_DEVICES=value)
        return json.loads(done.stdout)["gpus"]

    assert uuids(second.uuid) == [second.uuid]
    assert uuids("1") == [first.uuid]


@NEEDS_ROOT
def test_a_device_node_that_may_not_be_opened_is_hidden(four, hold, reachable):
    for index, mode in enumerate((0o600, 0o666, 0o600, 0o666)):
        node = reachable / f"nvidia{index}"
        node.touch()
        node.chmod(mode)
        four.gpu(index).set("device_file", str(node))
    _, line = hold("--seconds", "0", user="nobody", CUDA_VISIBLE_DEVICES="0")
    assert line["gpus"] == [four.gpu(1).uuid], "what is left is numbered from 0"


@NEEDS_ROOT
def test_another_user_holds_memory_until_killed(nvml, node, hold):
    process, line = hold("--memory-mb", "700", "--name", "train", user="nobody")
    assert line == {"pid": process.pid, "node": "n1", "gpus": [gpu.uuid for gpu in node.gpus]}
    assert nvml("[pids(handle(0)), pids(handle(1))]") == [[process.pid], [process.pid]]
    assert nvml("used_mb(handle(0))") == 745
    assert (process.poll(), Path(f"/proc/{process.pid}").stat().st_uid) == (None, 65534)
    process.kill()
    process.wait()
    assert nvml("[pids(handle(0)), used_mb(handle(1))]") == [[], 45]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_end_leaves_nothing_behind(node, hold, number):
    process, _ = hold("--gpu", "1", "--type", "CG")
    announced = node.gpu(1).path / "processes"
    assert [entry.name for entry in announced.iterdir()] == [str(process.pid)]
    process.send_signal(number)
    assert process.wait(5) == 0
    assert list(announced.iterdir()) == []


def test_exec_keeps_the_pid(nvml, node, hold):
    process, line = hold("--gpu", node.gpu(1).uuid, "--exec", "--", "sleep", "60")
    deadline = time.monotonic() + 5
    while nvml(f"p.nvmlSystemGetProcessName({process.pid})") != "sleep":
        assert time.monotonic() < deadline
    assert line["gpus"] == [node.gpu(1).uuid]
    assert nvml("[pids(handle(0)), pids(handle(1))]") == [[], [process.pid]]


def test_exec_of_nothing_gives_the_memory_back(run_program, node):
    done = run_program("gpu-process", "--gpu", "0", "--exec", "--", "no-such-command")
    assert done.returncode == 127
    assert list((node.gpu(0).path / "processes").iterdir()) == []


def test_out_of_memory(run_program, node):
    node.gpu(1).set_memory(total_mb=1000, used_mb=100, reserved_mb=100)
    node.gpu(1).add_process(os.getpid(), 500)
    fits = run_program("gpu-process", "--memory-mb", "300", "--seconds", "0")
    assert fits.returncode == 0
    fails = run_program("gpu-process", "--memory-mb", "301", "--seconds", "0")
    assert (fails.returncode, fails.stdout) == (2, "")
    assert "CUDA error: out of memory" in fails.stderr
    assert list((node.gpu(0).path / "processes").iterdir()) == [], "all or nothing"


def test_only_as_many_as_fit_get_the_memory(node, library, state):
    node.gpu(0).set_memory(total_mb=1000, used_mb=0, reserved_mb=0)
    command = [library.parent / "gpu-process", "--gpu=0", "--memory-mb=300", "--seconds=1"]
    many = [
        subprocess.Popen(
            command,
            env={"PATH": "/usr/bin", **state.env("n1")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(8)
    ]
    assert sorted(process.wait() for process in many) == [0, 0, 0, 2, 2, 2, 2, 2]


def test_other_cuda_errors(run_program, node):
    node.gpu(0).set_health(compute_mode=2)
    assert run_program("gpu-process", "--gpu", "0").returncode == 3
    node.gpu(0).set_health(compute_mode=3)
    node.gpu(0).add_process(os.getpid(), 1)
    assert run_program("gpu-process", "--gpu", "0").returncode == 3
    assert run_program("gpu-process", "--gpu", "7").returncode == 3
    node.gpu(1).set("memory_total_mb", "garbage")
    assert run_program("gpu-process", "--gpu", "1").returncode == 3
    assert run_program("gpu-process", "--bogus").returncode == 64


def smi(run_program, *arguments):
    done = run_program("nvidia-smi", *arguments)
    return done.returncode, done.stdout


def test_smi_reads_what_nvml_reads(run_program, node):
    node.gpu(1).add_process(os.getpid(), 100)
    query = "--query-gpu=index,uuid,memory.total,memory.used,memory.reserved,memory.free,name"
    name = fake_nvml.DEFAULT_NAME
    assert smi(run_program, query, "--format=csv,noheader,nounits") == (
        0,
        f"0, {node.gpu(0).uuid}, 81559, 45, 551, 80963, {name}\n"
        f"1, {node.gpu(1).uuid}, 81559, 145, 551, 80863, {name}\n",
    )
    assert smi(run_program, "--query-gpu=index,memory.used", "--format=csv", "-i", "1") == (
        0,
        "index, memory.used [MiB]\n1, 145 MiB\n",
    )


def test_smi_shows_health_and_what_is_unknown(run_program, node):
    fields = (
        "driver_version,pci.bus_id,compute_mode,ecc.errors.uncorrected.volatile.total,"
        "retired_pages.pending,remapped_rows.pending,mig.mode.current,memory.used"
    )
    node.gpu(0).set_health(compute_mode=3, ecc_uncorrected_volatile=2, remap_pending=1)
    node.gpu(0).set_memory_supported(False)
    node.gpu(1).set_health(ecc_mode=0, retired_pending=1)
    node.gpu(1).add_mig(0)
    assert smi(run_program, f"--query-gpu={fields}", "--format=csv,noheader") == (
        0,
        "570.124.06, 00000000:10:00.0, Exclusive_Process, 2, [N/A], Yes, Disabled, [N/A]\n"
        "570.124.06, 00000000:11:00.0, Default, [N/A], Yes, No, Enabled, 45 MiB\n",
    )


@pytest.mark.parametrize("memory", ["used_memory", "used_gpu_memory"])
def test_smi_lists_compute_processes(run_program, node, memory):
    with fake_nvml.start_gpu_process(node.gpu(0), 8000, name="train.py") as process:
        process.occupy(node.gpu(1), None)
        query = f"--query-compute-apps=pid,gpu_uuid,{memory},process_name"
        assert smi(run_program, query, "--format=csv,noheader,nounits") == (
            0,
            f"{process.pid}, {node.gpu(0).uuid}, 8000, train.py\n"
            f"{process.pid}, {node.gpu(1).uuid}, [N/A], train.py\n",
        )
    assert smi(run_program, query, "--format=csv") == (
        0,
        f"pid, gpu_uuid, {memory} [MiB], process_name\n",
    )


def test_smi_refuses_on_stdout(run_program, node):
    status, text = smi(run_program, "--query-gpu=index,bogus", "--format=csv")
    assert (status, text) == (2, 'Field "bogus" is not a valid field to query.\n\n')
    assert smi(run_program, "--query-gpu=index")[0] == 2
    assert smi(run_program, "--nonsense")[0] == 2
    assert smi(run_program, "-L", "-i", "7")[0] == 6
    node.gpu(0).set("memory_total_mb", "garbage")
    assert smi(run_program, "--query-gpu=memory.total", "--format=csv") == (255, "Unknown Error\n")


def test_smi_faults(run_program, node):
    node.inject("nvidia-smi", return_=18)
    status, text = smi(run_program, "-L")
    assert (status, text) == (18, "Failed to initialize NVML: Driver/library version mismatch\n")
    node.inject("nvidia-smi", stdout="not\ncsv")
    assert smi(run_program, "--query-gpu=index", "--format=csv") == (0, "not\ncsv\n")
    node.inject("nvidia-smi", lacks=["memory.reserved"])
    assert smi(run_program, "--query-gpu=memory.reserved", "--format=csv")[0] == 2
    assert smi(run_program, "--query-gpu=memory.used", "--format=csv")[0] == 0
    node.inject("nvidia-smi", delay_ms=200)
    began = time.monotonic()
    assert smi(run_program, "-L")[0] == 0
    assert time.monotonic() - began >= 0.2
    node.clear_injections()
    assert run_program("nvidia-smi", "-L", FAKE_NVML_NODE="elsewhere").returncode == 9


def test_smi_shows_what_fails_in_nvml(run_program, node):
    node.gpu(1).add_process(os.getpid(), 100)
    query = "--query-gpu=index,memory.used,compute_mode,mig.mode.current"
    node.inject("nvmlDeviceGetMemoryInfo", return_=15, gpu=1)
    node.inject("nvmlDeviceGetComputeMode", absent=True)
    assert smi(run_program, query, "--format=csv,noheader") == (
        0,
        "0, 45 MiB, [N/A], Disabled\n1, [GPU is lost], [N/A], Disabled\n",
    )
    node.inject("nvmlDeviceGetComputeRunningProcesses", return_=4, gpu=1)
    apps = ("--query-compute-apps=pid,gpu_uuid,used_memory", "--format=csv,noheader")
    words = "[Insufficient Permissions]"
    assert smi(run_program, *apps) == (0, f"{words}, {node.gpu(1).uuid}, {words}\n")
    node.inject("nvmlDeviceGetHandleByIndex", return_=15, gpu=1)
    status, text = smi(run_program, query, "--format=csv")
    assert (status, text.endswith("00000000:11:00.0: GPU is lost\n")) == (15, True)
    node.inject("nvmlDeviceGetCount", return_=999)
    assert smi(run_program, query, "--format=csv")[0] == 255
    node.inject("nvmlInit", return_=18)
    assert smi(run_program, query, "--format=csv")[0] == 18


def test_smi_without_gpus_and_with_two_queries(run_program, state):
    state.add_node("n1", 0)
    query = ("--query-gpu=index", "--format=csv,noheader")
    assert smi(run_program, *query) == (6, "No devices were found\n")
    status, text = smi(run_program, *query, "--query-compute-apps=pid")
    assert (status, "Only one --query-* switch" in text) == (2, True)


def test_a_name_of_any_bytes(nvml, run_program, node, library, state):
    node.gpu(0).set_raw_name(b"caf\xe9, \xff")
    assert nvml("list(p.nvmlDeviceGetName.__wrapped__(handle(0)))") == list(b"caf\xe9, \xff")
    done = subprocess.run(
        [library.parent / "nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "-i", "0"],
        check=True,
        env={"PATH": "/usr/bin:/bin", **state.env("n1")},
        capture_output=True,
    )
    assert done.stdout == b"caf\xe9, \xff\n"
    node.gpu(0).set_raw_name(None)
    assert nvml("p.nvmlDeviceGetName(handle(0))") == fake_nvml.DEFAULT_NAME


def test_the_kernel_modules_view_of_the_gpus(node, tmp_path):
    node.gpu(0).set("minor", 7)
    node.gpu(1).set("pci_bus_id", "00000001:AF:00.0")
    node.write_driver_proc(tmp_path)
    told = {one.parent.name: one.read_text() for one in tmp_path.glob("*/information")}
    assert sorted(told) == ["0000:10:00.0", "0001:af:00.0"]
    assert "Device Minor: \t 7\n" in told["0000:10:00.0"]
    assert node.gpu(1).uuid in told["0001:af:00.0"]


def test_smi_that_hangs_can_be_killed(library, state, node):
    node.inject("nvidia-smi", hang=True)
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(
            [library.parent / "nvidia-smi"], check=False, env=state.env("n1"), timeout=0.5
        )


def test_smi_for_people(run_program, node):
    node.gpu(0).add_mig(0)
    node.gpu(1).add_process(os.getpid(), 321)
    listed = smi(run_program, "-L")[1]
    assert f"GPU 1: {fake_nvml.DEFAULT_NAME} (UUID: {node.gpu(1).uuid})" in listed
    assert node.gpu(0).mig(0).uuid in listed
    shown = smi(run_program)[1]
    assert "366MiB / 81559MiB" in shown
    assert "321MiB" in shown
