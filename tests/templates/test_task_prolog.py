"""The task prolog names the task's GPUs, never adds one, and never ends a task."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import time
from pathlib import Path

import pytest

from .task_prolog import NOBODY, TaskProlog, record_text

A, B = "GPU-aaaaaaaa-1111-2222-3333-444444444444", "GPU-bbbbbbbb-1111-2222-3333-444444444444"
MIG = "MIG-cccccccc-1111-2222-3333-444444444444"
JOB = [(1, A, 5, "/dev/null"), (2, B, 3, "/dev/null")]

UNRESERVED = "Slurm's GPU {} is none of this job's"
TOO_MANY = "Slurm gave this task more GPUs than its job has"


def refusal(reason: str) -> list[str]:
    return [
        "export CUDA_VISIBLE_DEVICES=",
        f"print canhazgpu: this task sees no GPU: {reason}",
    ]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1,2", [f"export CUDA_VISIBLE_DEVICES={A},{B}"]),
        ("1", [f"export CUDA_VISIBLE_DEVICES={A}"]),
        ("2", [f"export CUDA_VISIBLE_DEVICES={B}"]),
        ("2,1", [f"export CUDA_VISIBLE_DEVICES={B},{A}"]),
        (None, []),
        ("", []),
        ("NoDevFiles", []),
        (A, [f"export CUDA_VISIBLE_DEVICES={A}"]),
        (f"{B},1", [f"export CUDA_VISIBLE_DEVICES={B},{A}"]),
        ("0", refusal(UNRESERVED.format(0))),
        ("1,3", refusal(UNRESERVED.format(3))),
        (MIG, refusal(UNRESERVED.format(MIG))),
        (A[:12], refusal(UNRESERVED.format(A[:12]))),
        ("01", refusal(UNRESERVED.format("01"))),
        ("1,2,0", refusal(TOO_MANY)),
    ],
)
def test_without_device_cgroups_positions_become_uuids(
    task_prolog: TaskProlog, visible: str | None, expected: list[str]
) -> None:
    task_prolog.record(7).write_text(record_text(JOB))

    told = task_prolog.run_as_job(visible)

    assert (told.lines, told.status, told.errors) == (expected, 0, "")


@pytest.mark.parametrize(
    ("readable", "visible", "expected"),
    [
        # A batch script or plain step, two tasks with one GPU each, and a task bound to one of two.
        ("ab", "0,1", [f"export CUDA_VISIBLE_DEVICES={A},{B}"]),
        ("a", "0", [f"export CUDA_VISIBLE_DEVICES={A}"]),
        ("b", "0", [f"export CUDA_VISIBLE_DEVICES={B}"]),
        ("ab", "0", [f"export CUDA_VISIBLE_DEVICES={A}"]),
        ("ab", "1,0", [f"export CUDA_VISIBLE_DEVICES={B},{A}"]),
        ("", None, []),
        ("a", B, [f"export CUDA_VISIBLE_DEVICES={B}"]),
        ("b", "1", refusal(UNRESERVED.format(1))),
        ("", "0", refusal(UNRESERVED.format(0))),
        ("ab", "08", refusal(UNRESERVED.format("08"))),
        ("ab", "0,2", refusal(UNRESERVED.format(2))),
    ],
)
@pytest.mark.parametrize("kind", ["file", "device"])
def test_with_device_cgroups_slurm_counts_what_the_task_may_open(
    task_prolog: TaskProlog, kind: str, readable: str, visible: str | None, expected: list[str]
) -> None:
    gpus = constrained_job(task_prolog.directory, kind, readable)
    task_prolog.record(7).write_text(record_text(gpus, constrained=True))

    told = task_prolog.run_as_job(visible, user=NOBODY)

    assert (told.lines, told.status, told.errors) == (expected, 0, "")


def constrained_job(directory: Path, kind: str, readable: str) -> list[tuple[int, str, int, str]]:
    """Make two device files; a mode of 0 stands for the cgroup that denies one."""
    if os.geteuid() != 0:
        pytest.skip("root alone makes device files and becomes another user")
    for name in "ab":
        path = directory / name
        if kind == "device":
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(195, 240))  # opening: ENXIO
        else:
            path.touch()
        path.chmod(0o666 if name in readable else 0)
    return [(1, A, 5, str(directory / "a")), (2, B, 3, str(directory / "b"))]


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("-", "the device file of GPU 1 is not known"),
        ("/dev/absent", "the device file /dev/absent does not exist"),
    ],
)
def test_a_device_that_cannot_be_asked_is_not_guessed(
    task_prolog: TaskProlog, device: str, reason: str
) -> None:
    gpus = [(1, A, 5, device), (2, B, 3, "/dev/null")]
    task_prolog.record(7).write_text(record_text(gpus, constrained=True))

    assert task_prolog.run_as_job("0").lines == refusal(reason)
    assert task_prolog.run_as_job("0,1").lines == [f"export CUDA_VISIBLE_DEVICES={A},{B}"]


@pytest.mark.parametrize(
    ("constrained", "visible", "expected"),
    [
        (False, "1,2", ["export CUDA_DEVICE_ORDER=PCI_BUS_ID", "export CUDA_VISIBLE_DEVICES=5,3"]),
        (False, "2", ["export CUDA_DEVICE_ORDER=PCI_BUS_ID", "export CUDA_VISIBLE_DEVICES=3"]),
        (True, "0,1", ["export CUDA_DEVICE_ORDER=PCI_BUS_ID"]),
        (True, "0", ["export CUDA_DEVICE_ORDER=PCI_BUS_ID"]),
        (False, None, []),
    ],
)
def test_indices_come_with_the_order_they_count_in(
    task_prolog: TaskProlog, constrained: bool, visible: str | None, expected: list[str]
) -> None:
    text = record_text(JOB, constrained=constrained, export="index")
    task_prolog.record(7).write_text(text)

    assert task_prolog.run_as_job(visible).lines == expected


HET = {
    "SLURM_HET_SIZE": "3",
    "SLURM_JOB_ID_HET_GROUP_0": "7",
    "SLURM_JOB_ID_HET_GROUP_1": "8",
    "SLURM_JOB_ID_HET_GROUP_2": "9",
}
C, D = "GPU-cccccccc-1111-2222-3333-444444444444", "GPU-dddddddd-1111-2222-3333-444444444444"
PART = [(0, C, 0, "/dev/null"), (3, D, 1, "/dev/null")]


@pytest.mark.parametrize(
    ("records", "visible", "expected"),
    [
        ({9: PART}, "0,3", [f"export CUDA_VISIBLE_DEVICES={C},{D}"]),
        ({9: PART}, "3", [f"export CUDA_VISIBLE_DEVICES={D}"]),
        ({7: JOB, 9: PART}, "0,3", [f"export CUDA_VISIBLE_DEVICES={C},{D}"]),
        ({7: JOB, 9: PART}, "2", [f"export CUDA_VISIBLE_DEVICES={B}"]),
        ({7: JOB, 9: PART}, "0,1", refusal(UNRESERVED.format(0))),
        ({9: PART}, "1", refusal(UNRESERVED.format(1))),
        ({}, "1", []),
    ],
)
def test_a_part_of_a_heterogeneous_job_has_a_record_of_its_own(
    task_prolog: TaskProlog,
    records: dict[int, list[tuple[int, str, int, str]]],
    visible: str,
    expected: list[str],
) -> None:
    for job, gpus in records.items():
        task_prolog.record(job).write_text(record_text(gpus))

    told = task_prolog.run_as_job(visible, **HET)

    assert (told.lines, told.status, told.errors) == (expected, 0, "")


def test_the_parts_of_the_job_that_submitted_this_one_do_not_count(
    task_prolog: TaskProlog,
) -> None:
    task_prolog.record(6).write_text(record_text(JOB))
    inherited = {"SLURM_HET_SIZE": "2", "SLURM_JOB_ID_HET_GROUP_0": "5"}
    inherited["SLURM_JOB_ID_HET_GROUP_1"] = "6"

    assert task_prolog.run_as_job("1", **inherited).lines == []
    task_prolog.record(7).write_text(record_text(PART))
    assert task_prolog.run_as_job("1", **inherited).lines == refusal(UNRESERVED.format(1))


@pytest.mark.parametrize(("readable", "expected"), [("a", A), ("b", B)])
def test_devices_tell_the_parts_of_a_job_on_one_node_apart(
    task_prolog: TaskProlog, readable: str, expected: str
) -> None:
    first, second = constrained_job(task_prolog.directory, "file", readable)
    task_prolog.record(7).write_text(record_text([first], constrained=True))
    task_prolog.record(9).write_text(record_text([second], constrained=True))

    told = task_prolog.run_as_job("0", user=NOBODY, **HET)

    assert told.lines == [f"export CUDA_VISIBLE_DEVICES={expected}"]


@pytest.mark.parametrize(
    "environ",
    [
        {"SLURM_HET_SIZE": "1"},
        {"SLURM_HET_SIZE": "many"},
        {"SLURM_HET_SIZE": "9999"},
        {"SLURM_JOB_ID_HET_GROUP_0": "$(id)"},
        {"SLURM_JOB_ID_HET_GROUP_1": "$(id)", "SLURM_JOB_ID_HET_GROUP_2": "../jobs/9"},
        {"SLURM_JOB_ID_HET_GROUP_1": "", "SLURM_JOB_ID_HET_GROUP_2": "9 9"},
    ],
)
def test_other_parts_count_only_by_their_ids(
    task_prolog: TaskProlog, environ: dict[str, str]
) -> None:
    task_prolog.record(7).write_text(record_text(JOB))
    task_prolog.record(9).write_text(record_text(PART))

    told = task_prolog.run_as_job("1", **{**HET, **environ})

    assert (told.lines, told.errors) == ([f"export CUDA_VISIBLE_DEVICES={A}"], "")


@pytest.mark.parametrize(
    ("constrained", "export", "on_node", "expected"),
    [
        (False, "uuid", "2", [f"export CUDA_VISIBLE_DEVICES={A},{B}"]),
        (
            False,
            "index",
            "2",
            ["export CUDA_DEVICE_ORDER=PCI_BUS_ID", "export CUDA_VISIBLE_DEVICES=5,3"],
        ),
        (True, "uuid", "2", []),
        (True, "index", "2", ["export CUDA_DEVICE_ORDER=PCI_BUS_ID"]),
        (False, "uuid", "", []),
        (False, "uuid", "two", []),
    ],
)
def test_a_step_bound_to_none_of_its_gpus_sees_the_jobs(
    task_prolog: TaskProlog, constrained: bool, export: str, on_node: str, expected: list[str]
) -> None:
    text = record_text(JOB, constrained=constrained, export=export)
    task_prolog.record(7).write_text(text)

    assert task_prolog.run_as_job(None, SLURM_GPUS_ON_NODE=on_node).lines == expected


@pytest.mark.parametrize(
    ("constrained", "visible", "expected"),
    [
        (False, "3", refusal("GPU 3 is another job's, and canhazgpu could not give this job any")),
        (
            False,
            f"0,{A}",
            refusal(f"GPU {A} is another job's, and canhazgpu could not give this job any"),
        ),
        (False, "0,1,2", []),
        (False, "03", []),
        (False, "*", []),
        (True, "3", []),
    ],
)
def test_a_job_without_a_record_sees_no_other_jobs_gpu(
    task_prolog: TaskProlog, constrained: bool, visible: str, expected: list[str]
) -> None:
    task_prolog.record(5).write_text("damaged")
    task_prolog.record(6).write_text(record_text(JOB, constrained=constrained))
    task_prolog.record(8).mkdir()

    told = task_prolog.run_as_job(visible)

    assert (told.lines, told.status, told.errors) == (expected, 0, "")


WARNING = "canhazgpu: warning: GPU 1 is in use by bob: 8045MB used by PID 1 (a$(id)`b`\\n *)"


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        (WARNING + "\n", {}, [f"print {WARNING}"]),
        (WARNING + "\nexport X=1\n", {}, [f"print {WARNING}"]),
        (WARNING + "\n", {"SLURM_STEP_ID": "0"}, []),
        ("", {}, []),
    ],
)
def test_a_warning_is_told_once_in_the_batch_scripts_output(
    task_prolog: TaskProlog, text: str, environ: dict[str, str], expected: list[str]
) -> None:
    task_prolog.record(7).with_suffix(".warning").write_text(text)

    told = task_prolog.run_as_job(None, **environ)

    assert (told.lines, told.status, told.errors) == (expected, 0, "")


GOOD = record_text(JOB)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "canhazgpu 2\n" + GOOD.split("\n", 1)[1],
        GOOD[:-1],  # cut short
        GOOD.replace("export uuid", "export uuids"),
        GOOD.replace("constrained 0", "constrained"),
        GOOD.replace("export uuid\n", ""),
        GOOD.replace(A, "$(touch /tmp/owned)"),
        GOOD.replace(A, "aaaa"),
        GOOD.replace("/dev/null", "dev/null"),
        GOOD.replace(" 5 ", " five "),
        GOOD + "gpu 3 " + A + " 1 /dev/null more\n",
        GOOD + "else\n",
        GOOD.split("gpu")[0],
        "\x00\xff\xfe" * 400,
        "gpu " * 100_000,
    ],
)
def test_a_record_that_is_not_the_prologs_gives_no_gpu(
    task_prolog: TaskProlog, content: str
) -> None:
    task_prolog.record(7).write_bytes(content.encode("latin-1"))

    told = task_prolog.run_as_job("1")

    record = task_prolog.record(7)
    why = f"{record} is not what canhazgpu's prolog writes; tell the administrator"
    assert (told.lines, told.status) == (refusal(why), 0)


def test_a_record_that_cannot_be_read_gives_no_gpu(task_prolog: TaskProlog) -> None:
    task_prolog.record(7).mkdir()

    assert task_prolog.run_as_job("1").lines[0] == "export CUDA_VISIBLE_DEVICES="


@pytest.mark.parametrize(
    "environ",
    [
        {"SLURM_JOB_ID": "8"},  # a job without a record
        {"SLURM_JOB_ID": ""},
        {"SLURM_JOB_ID": "../jobs/7"},
        {"SLURM_JOB_ID": "*"},
        {"SLURM_JOB_ID": "7 7"},
        {"SLURM_JOB_ID": "7" * 5000},
        {"SLURMD_NODENAME": ""},
        {"SLURMD_NODENAME": ".."},
        {"SLURMD_NODENAME": "n1/../n1"},
        {"SLURMD_NODENAME": "n[1]"},
        {"SLURMD_NODENAME": "n1\n"},
    ],
)
def test_without_a_record_slurms_values_stay(
    task_prolog: TaskProlog, environ: dict[str, str]
) -> None:
    task_prolog.record(7).write_text(GOOD)

    told = task_prolog.run_as_job("1", **environ)

    assert (told.lines, told.status) == ([], 0)


@pytest.mark.parametrize(
    "visible",
    ["1 2", "1,", ",1", "1,,2", "*", "$(id)", "`id`", "1;id", "1\nexport X=1", "-1", "\\1", "é"],
)
def test_what_is_no_list_of_gpus_is_not_repeated(task_prolog: TaskProlog, visible: str) -> None:
    task_prolog.record(7).write_text(GOOD)

    told = task_prolog.run_as_job(visible)

    reasons = (
        "CUDA_VISIBLE_DEVICES is not a list of GPUs",
        UNRESERVED.format(visible),
    )
    assert told.lines in [refusal(reason) for reason in reasons]
    assert len(told.lines) == 2 and told.status == 0


def test_huge_input_is_answered_at_once(task_prolog: TaskProlog) -> None:
    task_prolog.record(7).write_text(GOOD)
    began = time.monotonic()

    told = task_prolog.run_as_job(",".join(["1"] * 50_000))

    assert (told.lines, told.status) == (refusal(TOO_MANY), 0)
    assert time.monotonic() - began < 5


HOSTILE = {
    "PATH": "/nowhere",
    "IFS": "1",
    "LC_ALL": "xx_XX",
    "ENV": "/nowhere",
    "CDPATH": "/",
    "PS4": "$(id)",
    "SLURM_JOB_GPUS": "0",
    "SLURM_STEP_GPUS": "0",
    "GPU_DEVICE_ORDINAL": "0",
    "constrained": "1",
    "gpus": "0 GPU-evil 0 /dev/null",
    "own": "0 GPU-evil 0 /dev/null",
    "count": "9",
    "style": "index",
    "visible": "GPU-evil",
    "reason": "evil",
    "record": "/etc/passwd",
    "node": "evil",
    "word": "evil",
    "jobs": "8 9",
    "job": "9",
    "several": "1",
    "place": "-5",
    "tried": "evil",
    "records": "/etc",
    "warning": "/etc/passwd",
    "text": "evil",
    "SLURM_HET_SIZE": "$(id)",
}


def test_nothing_else_in_the_environment_counts(task_prolog: TaskProlog) -> None:
    task_prolog.record(7).write_text(GOOD)

    told = task_prolog.run(
        {**HOSTILE, "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1", "CUDA_VISIBLE_DEVICES": "1"}
    )

    assert (told.lines, told.status) == ([f"export CUDA_VISIBLE_DEVICES={A}"], 0)


def test_a_closed_output_does_not_end_the_task(task_prolog: TaskProlog) -> None:
    task_prolog.record(7).write_text(GOOD)
    environ = {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1", "CUDA_VISIBLE_DEVICES": "1"}
    inner = " ".join([*task_prolog.shell, f"'{task_prolog.script}'", ">&-"])

    done = subprocess.run(["/bin/sh", "-c", inner], env=environ, check=False, capture_output=True)

    assert done.returncode == 0


def test_no_process_is_started(task_prolog: TaskProlog) -> None:
    """Where processes are limited to this one, a fork would show."""
    if os.geteuid() != 0:
        pytest.skip("becomes another user")

    task_prolog.record(7).write_text(record_text(JOB, constrained=True))
    environ = {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1", "CUDA_VISIBLE_DEVICES": "0"}

    done = subprocess.run(
        [*task_prolog.shell, str(task_prolog.script)],
        env=environ,
        user=1_000_000 + os.getpid(),  # nobody else's id, no other worker's either
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (1, 1)),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == (f"export CUDA_VISIBLE_DEVICES={A}\n", "")
