"""The task prolog names the task's GPUs, never adds one, and never ends a task."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from canhazgpu.ledger.local.jobs.task_record import export_words

from .task_prolog import NOBODY, TaskProlog, record_text, told_gpus

A, B = "GPU-aaaaaaaa-1111-2222-3333-444444444444", "GPU-bbbbbbbb-1111-2222-3333-444444444444"
C, D = "GPU-cccccccc-1111-2222-3333-444444444444", "GPU-dddddddd-1111-2222-3333-444444444444"
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
        ("1,2", told_gpus(A, B)),
        ("1", told_gpus(A)),
        ("2", told_gpus(B)),
        ("2,1", told_gpus(B, A)),
        (None, []),
        ("", []),
        ("NoDevFiles", []),
        (A, told_gpus(A)),
        (f"{B},1", told_gpus(B, A)),
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


# What the task may open, what Slurm says, and what the task's GPUs are; None where Slurm is wrong.
CONSTRAINED_TASKS = [
    # A batch script or plain step, two tasks with a GPU each, a task bound in the other order.
    ("ab", "0,1", [A, B], "0,1"),
    ("a", "0", [A], "0"),
    ("b", "0", [B], "0"),
    ("ab", "1,0", [B, A], "1,0"),
    # Slurm counts past the task's GPUs, or leaves one of them out.
    ("ab", "0", [A, B], None),
    ("ab", "1", [A, B], None),
    ("b", "1", [B], None),
    ("ab", "0,2", [A, B], None),
    ("ab", "0,0", [A, B], None),
    ("a", "0,1,2", [A], None),
    ("ab", "08", [A, B], None),
    # By UUID, as gres.conf's Flags=env_uuid has it.
    ("a", A, [A], A),
    ("ab", f"{B},{A}", [B, A], f"{B},{A}"),
    ("a", B, [A], None),
    ("ab", B, [A, B], None),
    ("ab", f"{A},{MIG}", [A, B], None),
]


@pytest.mark.parametrize(("readable", "visible", "own", "slurms"), CONSTRAINED_TASKS)
@pytest.mark.parametrize("kind", ["file", "device"])
@pytest.mark.parametrize("export", ["auto", "uuid", "index"])
def test_with_device_cgroups_a_task_is_told_what_it_may_open(
    task_prolog: TaskProlog,
    export: str,
    kind: str,
    readable: str,
    visible: str,
    own: list[str],
    slurms: str | None,
) -> None:
    gpus = constrained_job(task_prolog.directory, kind, readable)
    task_prolog.record(7).write_text(record_text(gpus, constrained=True, export=export))

    told = task_prolog.run_as_job(visible, user=NOBODY)

    expected = {
        "auto": told_gpus(*own, visible=slurms),
        "uuid": told_gpus(*own),
        "index": [
            "export CUDA_DEVICE_ORDER=PCI_BUS_ID",
            *told_gpus(*own, visible=numbers_of(own, slurms)),
        ],
    }
    assert (told.lines, told.status, told.errors) == (expected[export], 0, "")


def numbers_of(own: list[str], slurms: str | None) -> str:
    """All that the task may open, from 0; in Slurm's order where Slurm says so itself."""
    if slurms is not None and not slurms.startswith("GPU"):
        return slurms
    return ",".join(map(str, range(len(own))))


@pytest.mark.parametrize("export", ["auto", "uuid", "index"])
def test_a_task_that_may_open_none_of_its_jobs_gpus_sees_none(
    task_prolog: TaskProlog, export: str
) -> None:
    gpus = constrained_job(task_prolog.directory, "file", "")
    task_prolog.record(7).write_text(record_text(gpus, constrained=True, export=export))

    assert task_prolog.run_as_job("0", user=NOBODY).lines == refusal(UNRESERVED.format(0))
    assert task_prolog.run_as_job(None, user=NOBODY).lines == []


def test_a_gpu_of_several_files_is_the_tasks_if_it_may_open_all_of_them(
    task_prolog: TaskProlog,
) -> None:
    (_, _, _, first), (_, _, _, second) = constrained_job(task_prolog.directory, "file", "a")
    gpus = [(1, A, 5, f"/dev/null,{second}"), (2, B, 3, f"/dev/null,{first}")]
    task_prolog.record(7).write_text(record_text(gpus, constrained=True))

    assert task_prolog.run_as_job("0", user=NOBODY).lines == told_gpus(B)


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
    assert task_prolog.run_as_job("0,1").lines == told_gpus(A, B)
    # What a task can open is its job's: Slurm's own value gives it nothing else.
    text = record_text(gpus, constrained=True, export="auto")
    task_prolog.record(7).write_text(text)
    assert task_prolog.run_as_job("0").lines == ["export CUDA_VISIBLE_DEVICES=0"]
    assert task_prolog.run_as_job("0,1").lines == told_gpus(A, B, visible="0,1")


ORDER = "export CUDA_DEVICE_ORDER=PCI_BUS_ID"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1,2", [ORDER, *told_gpus(A, B, visible="5,3")]),
        ("2", [ORDER, *told_gpus(B, visible="3")]),
        (None, []),
    ],
)
def test_indices_come_with_the_order_they_count_in(
    task_prolog: TaskProlog, visible: str | None, expected: list[str]
) -> None:
    task_prolog.record(7).write_text(record_text(JOB, export="index"))

    assert task_prolog.run_as_job(visible).lines == expected


def test_an_index_that_is_not_certain_is_not_exported(task_prolog: TaskProlog) -> None:
    text = record_text(JOB, export="index").replace(f"{A} 5", f"{A} -")
    task_prolog.record(7).write_text(text)

    told = task_prolog.run_as_job("1,2").lines

    why = 'slurm.export is "index", but CUDA\'s indices of its GPUs are not certain'
    assert told == refusal(f"{why}; tell the administrator")
    assert task_prolog.run_as_job("2").lines == [ORDER, *told_gpus(B, visible="3")]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        # Slurm's own names count, also where they are those of other GPUs of the job.
        (C, told_gpus(A)),
        (A, told_gpus(B)),
        (f"{A},{C}", told_gpus(B, A)),
        ("2", told_gpus(B)),
        (B, told_gpus(B)),
        (D, refusal(UNRESERVED.format(D))),
    ],
)
def test_slurms_uuids_only_count_where_canhazgpu_picks(
    task_prolog: TaskProlog, visible: str, expected: list[str]
) -> None:
    export = export_words("uuid", scheduler_uuids=((1, C), (2, A)))
    task_prolog.record(7).write_text(record_text(JOB, export=export))

    assert task_prolog.run_as_job(visible).lines == expected


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (f"{C},{D}", told_gpus(A, B)),
        (f"{B},{C}", told_gpus(A, B)),
        # Which of the job's two GPUs that is, nobody knows.
        (C, refusal(UNRESERVED.format(C))),
        (B, refusal(UNRESERVED.format(B))),
        ("1", told_gpus(A)),
    ],
)
def test_where_slurms_uuids_are_not_known_all_of_them_count_as_the_jobs(
    task_prolog: TaskProlog, visible: str, expected: list[str]
) -> None:
    export = export_words("uuid", scheduler_uuids=None)
    task_prolog.record(7).write_text(record_text(JOB, export=export))

    assert task_prolog.run_as_job(visible).lines == expected


NVIDIA = "NVIDIA_VISIBLE_DEVICES"
OTHERS = (NVIDIA, f"APPTAINERENV_{NVIDIA}")
ALSO = export_words("auto", OTHERS)


@pytest.mark.parametrize("constrained", [False, True])
def test_the_sites_variables_hold_the_uuids_too(task_prolog: TaskProlog, constrained: bool) -> None:
    text = record_text(JOB, constrained=constrained, export=ALSO)
    task_prolog.record(7).write_text(text)
    both = "0,1" if constrained else "1,2"

    told = task_prolog.run_as_job(both, NVIDIA_VISIBLE_DEVICES="all").lines

    assert told == told_gpus(A, B, visible="0,1" if constrained else None, also=OTHERS)


def test_the_sites_variables_name_no_gpu_where_a_task_sees_none(task_prolog: TaskProlog) -> None:
    task_prolog.record(7).write_text(record_text(JOB, export=ALSO))

    assert task_prolog.run_as_job("3").lines == [
        *refusal(UNRESERVED.format(3)),
        *(f"export {name}=void" for name in OTHERS),
    ]


@pytest.mark.parametrize(
    ("visible", "environ"),
    [
        (None, {}),  # --gres=none, or a job without GPUs
        ("NoDevFiles", {}),
        ("1", {"SLURM_JOB_ID": "8"}),  # no record
        ("1", {"SLURM_JOB_ID": ""}),
        ("1", {"SLURMD_NODENAME": ".."}),
    ],
)
def test_a_task_does_not_inherit_the_names_of_other_gpus(
    task_prolog: TaskProlog, visible: str | None, environ: dict[str, str]
) -> None:
    task_prolog.record(7).write_text(record_text(JOB, export=ALSO))
    inherited = {"CANHAZGPU_GPUS": A, NVIDIA: A, f"SINGULARITYENV_{NVIDIA}": B, "named": "1"}

    told = task_prolog.run_as_job(visible, **{**inherited, **environ})

    assert (told.lines, told.status) == (["unset CANHAZGPU_GPUS", f"unset {NVIDIA}"], 0)


def test_a_refused_task_does_not_inherit_them_either(task_prolog: TaskProlog) -> None:
    task_prolog.record(7).write_text(record_text(JOB))

    told = task_prolog.run_as_job("3", CANHAZGPU_GPUS=f"{A},{B}")

    assert told.lines == [*refusal(UNRESERVED.format(3)), "unset CANHAZGPU_GPUS"]


OLD_RECORD = f"""canhazgpu 1
constrained 1
export uuid
gpu 1 {A} 5 /dev/null
gpu 2 {B} 3 /dev/null
"""


def test_records_of_this_release_and_the_one_before_are_read_by_both(
    task_prolog: TaskProlog,
) -> None:
    task_prolog.record(7).write_text(OLD_RECORD)
    assert task_prolog.run_as_job("0,1").lines == told_gpus(A, B)

    # The release before knows these words, and of several lines "export WORD" takes the last.
    export = export_words("auto", OTHERS, ((1, A),))
    new = record_text(JOB, constrained=True, export=export).splitlines()
    assert {line.split()[0] for line in new} == {"canhazgpu", "constrained", "export", "gpu"}
    exports = [line.split() for line in new if line.startswith("export")]
    assert exports[-1] == ["export", "uuid"] and {len(words) for words in exports} == {2}

    # A word of a later release is passed over.
    later = OLD_RECORD.replace("export uuid", "export later=1\nexport uuid")
    task_prolog.record(7).write_text(later)
    assert task_prolog.run_as_job("0,1").lines == told_gpus(A, B)


HET = {
    "SLURM_HET_SIZE": "3",
    "SLURM_JOB_ID_HET_GROUP_0": "7",
    "SLURM_JOB_ID_HET_GROUP_1": "8",
    "SLURM_JOB_ID_HET_GROUP_2": "9",
}
PART = [(0, C, 0, "/dev/null"), (3, D, 1, "/dev/null")]


@pytest.mark.parametrize(
    ("records", "visible", "expected"),
    [
        ({9: PART}, "0,3", told_gpus(C, D)),
        ({9: PART}, "3", told_gpus(D)),
        ({7: JOB, 9: PART}, "0,3", told_gpus(C, D)),
        ({7: JOB, 9: PART}, "2", told_gpus(B)),
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

    assert told.lines == told_gpus(expected)


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

    assert (told.lines, told.errors) == (told_gpus(A), "")


@pytest.mark.parametrize(
    ("constrained", "export", "on_node", "expected"),
    [
        (False, "uuid", "2", told_gpus(A, B)),
        (False, "index", "2", [ORDER, *told_gpus(A, B, visible="5,3")]),
        (True, "auto", "2", told_gpus(A, B)),
        (True, "uuid", "2", told_gpus(A, B)),
        (True, "index", "2", [ORDER, *told_gpus(A, B, visible="0,1")]),
        (False, "uuid", "", []),
        (True, "uuid", "", []),
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
        (WARNING + "\n", {"SLURM_STEP_ID": "-5"}, [f"print {WARNING}"]),  # as in 26.05
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
        GOOD.replace("export uuid", "export also=LD_PRELOAD=1\nexport uuid"),
        GOOD.replace("export uuid", "export also=\nexport uuid"),
        GOOD.replace("export uuid", "export slurm=1=$(id)\nexport uuid"),
        GOOD.replace(A, "$(touch /tmp/owned)"),
        GOOD.replace(A, "aaaa"),
        GOOD.replace("/dev/null", "dev/null"),
        GOOD.replace(" 5 ", " five "),
        GOOD.replace(" 5 ", " -5 "),
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


def hidden(directory: Path) -> list[str]:
    why = f"{directory} cannot be searched for canhazgpu's record of this job"
    return refusal(f"{why}; tell the administrator")


@pytest.mark.parametrize("job", ["7", "8"])
@pytest.mark.parametrize("mode", [0o700, 0o600, 0o744, 0])
@pytest.mark.parametrize("level", ["state", "node", "jobs"])
def test_a_record_that_may_be_hidden_gives_no_gpu(
    task_prolog: TaskProlog, level: str, mode: int, job: str
) -> None:
    task_prolog.record(7).write_text(GOOD)
    jobs = task_prolog.record(7).parent
    closed = {"state": task_prolog.state, "node": jobs.parent, "jobs": jobs}[level]
    closed.chmod(mode)

    told = task_prolog.run_as_job("1", user=NOBODY, SLURM_JOB_ID=job)

    assert (told.lines, told.status, told.errors) == (hidden(closed), 0, "")


def test_records_that_cannot_be_listed_may_be_others(task_prolog: TaskProlog) -> None:
    # Given records that can be read by their names alone
    task_prolog.record(7).write_text(record_text(JOB))
    jobs = task_prolog.record(7).parent
    jobs.chmod(0o711)

    # I expect a task with a record to be told, and one without not to get another job's GPU
    told = task_prolog.run_as_job("1", user=NOBODY).lines
    assert told[0] == f"export CUDA_VISIBLE_DEVICES={A}"
    assert task_prolog.run_as_job("1", user=NOBODY, SLURM_JOB_ID="8").lines == hidden(jobs)


@pytest.mark.parametrize("depth", ["state", "node", "jobs"])
@pytest.mark.parametrize("there", ["nothing", "file", "dangling link"])
def test_a_directory_that_is_not_there_hides_nothing(
    task_prolog: TaskProlog, depth: str, there: str
) -> None:
    jobs = task_prolog.record(7).parent
    path = {"state": task_prolog.state, "node": jobs.parent, "jobs": jobs}[depth]
    shutil.rmtree(path)
    if there == "file":
        path.write_text("")
    elif there == "dangling link":
        path.symlink_to("nowhere")

    told = task_prolog.run_as_job("1", user=NOBODY).lines

    assert told == ([] if there == "nothing" else hidden(path))


@pytest.mark.parametrize("kind", ["unreadable", "damaged", "directory", "dangling link"])
def test_a_record_that_is_there_and_says_nothing_gives_no_gpu(
    task_prolog: TaskProlog, kind: str
) -> None:
    record = task_prolog.record(7)
    if kind == "directory":
        record.mkdir()
    elif kind == "dangling link":
        record.symlink_to("nowhere")
    else:
        record.write_text(GOOD if kind == "unreadable" else "damaged")
        record.chmod(0o600 if kind == "unreadable" else 0o644)

    for visible, on_node in (("1", "1"), (None, "1"), (A, "1")):
        told = task_prolog.run_as_job(visible, user=NOBODY, SLURM_GPUS_ON_NODE=on_node)
        why = f"{record} is not what canhazgpu's prolog writes; tell the administrator"
        assert (told.lines, told.status, told.errors) == (refusal(why), 0, "")

    # And a task without GPUs is told nothing.
    assert task_prolog.run_as_job("NoDevFiles", user=NOBODY).lines == []
    assert task_prolog.run_as_job(None, user=NOBODY).lines == []


@pytest.mark.may_skip
@pytest.mark.parametrize(
    ("visible", "on_node", "kept"),
    [
        ("0", "1", True),
        ("0,1", "2", True),
        (None, "2", True),
        (f"{A},{B}", "2", True),
        ("1", "1", False),  # counts from 0 where devices are constrained
        ("1,0", "2", False),
        ("x", "1", False),
    ],
)
def test_without_a_readable_record_slurms_own_value_stays_where_it_constrains_devices(
    task_prolog: TaskProlog, visible: str | None, on_node: str, kept: bool
) -> None:
    task_prolog.record(7).write_text("damaged")
    environ = {"SLURM_GPUS_ON_NODE": on_node}

    with devices_group_of_a_job() as group:
        constrained = task_prolog.run_as_job(visible, group=group, **environ)
    assert constrained.errors == ""
    assert constrained.lines == ([] if kept else task_prolog.run_as_job(visible, **environ).lines)
    assert task_prolog.run_as_job(visible, **environ).lines[0] == "export CUDA_VISIBLE_DEVICES="


@contextlib.contextmanager
def devices_group_of_a_job() -> Iterator[Path]:
    """Make a devices group such as Slurm's for a task of a job with constrained devices."""
    top = Path(f"/sys/fs/cgroup/devices/task-prolog-{os.getpid()}")
    if os.geteuid() != 0 or not top.parent.is_dir():
        pytest.skip("there is no cgroup v1 here that this user could change")
    path = top / "uid_1" / "job_7" / "step_0"
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        for one in (path, *path.parents):
            if one.is_relative_to(top):
                one.rmdir()


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
    began = children_cpu_s()

    told = task_prolog.run_as_job(",".join(["1"] * 50_000))

    assert (told.lines, told.status) == (refusal(TOO_MANY), 0)
    # Not by the clock: the test shares its core.
    assert children_cpu_s() - began < 5


def children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
    "places": "evil",
    "uuids": "GPU-evil",
    "indices": "evil",
    "replaced": "1",
    "by_uuid": "1",
    "own_count": "9",
    "also": "LD_PRELOAD",
    "slurm_gpus": "1 GPU-evil",
    "named": "",
    "name": "evil",
    "file": "/etc/passwd",
    "CANHAZGPU_GPUS": "GPU-evil",
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

    assert (told.lines, told.status) == (told_gpus(A), 0)


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

    assert (done.stdout.splitlines(), done.stderr) == (told_gpus(A, B), "")


M, N = MIG, "MIG-GPU-dddddddd-1111-2222-3333-444444444444/7/0"
ONE_INSTANCE = "CUDA shows a process one MIG instance, and none beside a whole GPU"


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize(
    ("gpus", "visible"),
    [
        ((M,), M),
        ((M, N), M),
        ((N, M), N),
        ((M, A, N), M),
        ((A, M, B), f"{A},{B}"),
        ((A, M), A),
        ((A, B), f"{A},{B}"),
    ],
)
def test_a_task_sees_what_cuda_shows_one_process(
    task_prolog: TaskProlog, gpus: tuple[str, ...], visible: str, constrained: bool
) -> None:
    job = [(place, gpu, 0, "/dev/null") for place, gpu in enumerate(gpus)]
    task_prolog.record(7).write_text(record_text(job, constrained=constrained))
    told = task_prolog.run_as_job(",".join(str(place) for place in range(len(gpus))))
    assert (told.status, told.errors) == (0, "")
    names = ",".join(gpus)
    expected = [f"export CUDA_VISIBLE_DEVICES={visible}", f"export CANHAZGPU_GPUS={names}"]
    if visible != names:
        expected.insert(
            0,
            f"print canhazgpu: {ONE_INSTANCE}: this task sees {visible};"
            " CANHAZGPU_GPUS names all of its GPUs",
        )
    assert told.lines == expected


def test_a_task_bound_to_one_of_its_jobs_instances_sees_that_one(task_prolog: TaskProlog) -> None:
    job = [(place, gpu, 0, "/dev/null") for place, gpu in enumerate((M, N))]
    task_prolog.record(7).write_text(record_text(job))
    assert task_prolog.run_as_job("1").lines == told_gpus(N)
