"""The node's records: what each step of a job's life leaves, whatever else is in the directory."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from canhazgpu.config.schema import NodeConfig
from canhazgpu.errors import NodeStateError
from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.ledger.local.jobs.job_record import JobRecord
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.jobs.task_record import export_words
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.node.identity import boot_id, node_name, state_dir

FIRST = JobOwner("c1", "12", 0)
SECOND = JobOwner("c1", "12", 1)
GPUS = (AssignedGpu(1, "GPU-b", 3), AssignedGpu(0, "GPU-a", 2, "/dev/nvidia5"))
FOREIGN = [
    "",
    "no json",
    "[]",
    "null",
    "7",
    '"text"',
    "{}",
    '{"owner": {}, "gpus": []}',
    '{"owner": 5, "gpus": []}',
    '{"a":' * 20000,
    '{"owner": {"cluster": "c1", "job_id": "99", "attempt": 0}, "user": "ann", "boot_id": null,'
    ' "gpus": []}',
    '{"owner": {"cluster": "c1", "job_id": "12", "attempt": "0"}, "user": "ann", "boot_id": null,'
    ' "gpus": []}',
    '{"owner": {"cluster": "c1", "job_id": "12", "attempt": 0}, "user": "ann", "boot_id": null,'
    ' "gpus": [], "epilogs_owed": "many"}',
    '{"owner": {"cluster": "c1", "job_id": "12", "attempt": 0}, "user": "ann", "boot_id": null,'
    ' "gpus": [], "format": 2}',
    '{"owner": {"cluster": "c1", "job_id": "12", "attempt": 0}, "user": {"a": 1}, "boot_id": null,'
    ' "gpus": []}',
    '{"owner": {"cluster": "c1", "job_id": ["12"], "attempt": 0}, "user": "ann", "boot_id": null,'
    ' "gpus": []}',
]
WHOLE: dict[str, Any] = {
    "owner": {"cluster": "c1", "job_id": "12", "attempt": 0},
    "user": "ann",
    "boot_id": "boot 1",
    "gpus": [{"position": 1, "uuid": "GPU-b", "index": 3}],
}
"""As the first release that kept records wrote them, with what has a default left out."""


@pytest.fixture
def records(tmp_path: Path) -> JobRecords:
    return JobRecords(tmp_path)


def begin(records: JobRecords, owner: JobOwner = FIRST) -> None:
    records.begin(owner, "ann", "boot 1")


def complete(records: JobRecords, owner: JobOwner = FIRST) -> None:
    records.complete(owner, GPUS, constrained=True, export=["uuid"])


def names(directory: Path) -> set[str]:
    return {path.name for path in (directory / "jobs").iterdir()} - {".lock"}


def test_a_job_begins_is_completed_ends_and_is_forgotten(
    records: JobRecords, tmp_path: Path
) -> None:
    assert not records.has_readable("12")
    begin(records)
    assert records.has_readable("12")
    assert names(tmp_path) == {"12.json"}
    complete(records)
    assert names(tmp_path) == {"12.json", "12.env"}
    assert records.ended() == []
    ended = records.end("12")
    assert ended == JobRecord(FIRST, "ann", "boot 1", GPUS, 0, ended=True)
    assert records.ended() == [ended]
    assert names(tmp_path) == {"12.json"}
    records.forget(FIRST)
    assert names(tmp_path) == set()


def test_the_task_prologs_file_is_exact_and_in_the_order_of_positions(
    records: JobRecords, tmp_path: Path
) -> None:
    begin(records)
    complete(records)
    assert (tmp_path / "jobs" / "12.env").read_text() == (
        "canhazgpu 1\nconstrained 1\nexport cluster=c1\nexport uuid\n"
        "gpu 0 GPU-a 2 /dev/nvidia5\ngpu 1 GPU-b 3 -\n"
    )
    records.complete(FIRST, GPUS[:1], constrained=False, export=["uuid"])
    assert (tmp_path / "jobs" / "12.env").read_text() == (
        "canhazgpu 1\nconstrained 0\nexport cluster=c1\nexport uuid\ngpu 1 GPU-b 3 -\n"
    )


@pytest.mark.parametrize(("cuda_index", "told"), [(0, "0"), (7, "7"), (None, "-")])
def test_the_task_prolog_is_told_cudas_index_where_it_exports_indices(
    records: JobRecords, tmp_path: Path, cuda_index: int | None, told: str
) -> None:
    begin(records)
    gpus = [AssignedGpu(1, "GPU-b", 3, cuda_index=cuda_index)]
    records.complete(FIRST, gpus, constrained=False, export=["index"])
    assert (tmp_path / "jobs" / "12.env").read_text() == (
        f"canhazgpu 1\nconstrained 0\nexport cluster=c1\nexport index\ngpu 1 GPU-b {told} -\n"
    )
    assert records.find("12") == JobRecord(FIRST, "ann", "boot 1", tuple(gpus))


def test_the_task_prolog_of_the_release_before_takes_the_last_export(
    records: JobRecords, tmp_path: Path
) -> None:
    begin(records)
    words = export_words("auto", ["NVIDIA_VISIBLE_DEVICES"], [(1, "GPU-c")])
    records.complete(FIRST, GPUS[:1], constrained=True, export=words)
    assert (tmp_path / "jobs" / "12.env").read_text() == (
        "canhazgpu 1\nconstrained 1\nexport cluster=c1\nexport also=NVIDIA_VISIBLE_DEVICES\n"
        "export slurm=1=GPU-c\nexport auto\nexport uuid\ngpu 1 GPU-b 3 -\n"
    )


def test_beginning_again_changes_nothing(records: JobRecords) -> None:
    begin(records)
    complete(records)
    begin(records)
    assert records.end("12") == JobRecord(FIRST, "ann", "boot 1", GPUS, 0, ended=True)


def test_an_ended_attempt_begins_anew(records: JobRecords) -> None:
    begin(records)
    records.end("12")
    begin(records)
    assert records.ended() == []
    assert records.end("12") == JobRecord(FIRST, "ann", "boot 1", ended=True)


def test_the_late_epilog_of_an_earlier_attempt_ends_nothing(records: JobRecords) -> None:
    begin(records)
    begin(records, SECOND)
    begin(records, JobOwner("c1", "12", 2))
    assert records.end("12") is None
    assert records.end("12") is None
    assert records.ended() == []
    ended = records.end("12")
    assert ended is not None
    assert ended.owner.attempt == 2


def test_runs_that_the_scheduler_names_are_told_apart_without_counting(
    records: JobRecords,
) -> None:
    # Given an attempt, a later one, and an epilog of neither
    records.begin(FIRST, "ann", "boot 1", (1, 3), "sA")
    records.begin(SECOND, "ann", "boot 1", (1, 3), "sB")
    assert records.job_ids_by_run() == {"sB": "12"}
    assert not records.owes_epilogs("12", "sA")
    assert records.owes_epilogs("12")
    assert records.end("12", run_id="s?") is None
    assert records.end("12", run_id="s?", last=True) is None

    # If the epilog of the later one comes first, I expect it to end the later one
    ended = records.end("12", run_id="sB")
    assert ended is not None
    assert ended.owner == SECOND

    # and the other's to change nothing
    assert records.end("12", run_id="sA") is None
    assert records.ended() == [ended]


def test_a_number_given_again_at_once_is_another_run(records: JobRecords) -> None:
    records.begin(FIRST, "ann", "boot 1", (1,), "sA")
    assert records.begin(FIRST, "ann", "boot 1", (1,), "sA") is None
    assert records.begin(FIRST, "ann", "boot 1", (1,), "sB") == FIRST
    # A release of Slurm without names of runs tells nothing apart by them.
    assert records.begin(FIRST, "ann", "boot 1", (1,)) is None


def test_an_attempt_whose_epilog_ran_is_owed_none(records: JobRecords) -> None:
    begin(records)
    records.end("12")
    begin(records, SECOND)
    ended = records.end("12")
    assert ended is not None
    assert ended.owner == SECOND


def test_a_new_attempt_does_not_show_its_tasks_the_gpus_of_the_one_before(
    records: JobRecords, tmp_path: Path
) -> None:
    begin(records)
    complete(records)
    begin(records, SECOND)
    assert names(tmp_path) == {"12.json"}


def test_an_epilog_without_a_prolog_ends_nothing(records: JobRecords, tmp_path: Path) -> None:
    assert records.end("12") is None
    assert names(tmp_path) == set()


def test_only_an_ended_attempt_of_the_same_owner_is_forgotten(records: JobRecords) -> None:
    begin(records, SECOND)
    records.forget(SECOND)
    assert records.has_readable("12")
    records.end("12")
    records.forget(FIRST)
    assert records.has_readable("12")
    records.forget(SECOND)
    assert not records.has_readable("12")


def test_a_prolog_whose_record_is_anothers_meanwhile_completes_nothing(
    records: JobRecords, tmp_path: Path
) -> None:
    with pytest.raises(NodeStateError, match="record of job 12 changed under its prolog"):
        complete(records)
    begin(records, SECOND)
    with pytest.raises(NodeStateError, match="record of job 12 changed under its prolog"):
        complete(records)
    assert names(tmp_path) == {"12.json"}


@pytest.mark.parametrize("text", FOREIGN)
def test_a_record_that_is_not_ours_counts_as_none(
    records: JobRecords, tmp_path: Path, text: str
) -> None:
    begin(records)
    (tmp_path / "jobs" / "12.json").write_text(text)
    assert not records.has_readable("12")
    assert records.ended() == []
    with pytest.raises(NodeStateError):
        complete(records)
    records.forget(FIRST)
    with pytest.raises(NodeStateError, match=r"12\.json cannot be read"):
        records.end("12")
    assert names(tmp_path) == set()
    assert records.end("12") is None
    begin(records)
    assert records.has_readable("12")


@pytest.mark.parametrize(
    "data",
    [
        WHOLE,
        {**WHOLE, "more": {"of": ["a", "later", "release"]}},
        {**WHOLE, "owner": {**WHOLE["owner"], "more": 1}, "gpus": [{**WHOLE["gpus"][0], "mig": 2}]},
        {**WHOLE, "format": 1},
    ],
)
def test_an_older_and_a_newer_releases_records_are_read(
    records: JobRecords, tmp_path: Path, data: dict[str, Any]
) -> None:
    begin(records)
    (tmp_path / "jobs" / "12.json").write_text(json.dumps(data))
    ended = records.end("12")
    assert ended == JobRecord(FIRST, "ann", "boot 1", GPUS[:1], 0, ended=True)
    assert records.ended() == [ended]


def test_a_record_that_only_another_release_can_read_says_so(
    records: JobRecords, tmp_path: Path
) -> None:
    begin(records)
    (tmp_path / "jobs" / "12.json").write_text(json.dumps({**WHOLE, "format": 2}))
    with pytest.raises(NodeStateError, match="format 2, of another release"):
        records.end("12")


def test_bytes_and_a_cut_record_count_as_none_beside_one_that_is_whole(
    records: JobRecords, tmp_path: Path
) -> None:
    begin(records)
    whole = (tmp_path / "jobs" / "12.json").read_bytes()
    (tmp_path / "jobs" / "13.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "jobs" / "14.json").write_bytes(whole[:-9])
    (tmp_path / "jobs" / "15.json").mkdir()
    ended = records.end("12")
    assert records.ended() == [ended]
    assert [records.has_readable(name) for name in ("12", "13", "14", "15")] == [
        True,
        False,
        False,
        False,
    ]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "state"
    records = JobRecords(place)
    for step in (
        lambda: begin(records),
        lambda: complete(records),
        lambda: records.end("12"),
        lambda: records.forget(FIRST),
        records.ended,
    ):
        with pytest.raises(NodeStateError, match=f"{place}: Not a directory"):
            step()
    assert not records.has_readable("12")


def test_every_user_may_read_the_records_and_only_the_node_may_write_them(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        records = JobRecords(tmp_path)
        begin(records)
        complete(records)
    finally:
        os.umask(umask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "jobs").iterdir()}
    assert modes == {"12.json": 0o644, "12.env": 0o644, ".lock": 0o600}


def test_the_directories_are_open_to_every_user_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        begin(JobRecords(tmp_path / "run" / "canhazgpu"))
    finally:
        os.umask(umask)
    for directory in ("run/canhazgpu", "run/canhazgpu/jobs"):
        assert stat.S_IMODE((tmp_path / directory).stat().st_mode) == 0o755


CHILD = """
import sys
from pathlib import Path
from canhazgpu.ledger.local.jobs.job_records import JobRecords
records = JobRecords(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    assert records.end("12") is None
"""


@pytest.mark.slow
def test_two_processes_at_once_count_every_epilog(records: JobRecords, tmp_path: Path) -> None:
    each = 100
    for attempt in range(2 * each + 1):
        begin(records, JobOwner("c1", "12", attempt))
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), str(each)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=60)
        assert child.returncode == 0
    assert json.loads((tmp_path / "jobs" / "12.json").read_text())["epilogs_owed"] == 0
    assert records.end("12") is not None


@pytest.mark.slow
def test_no_reader_ever_sees_half_a_file(records: JobRecords, tmp_path: Path) -> None:
    many = [AssignedGpu(place, f"GPU-{place:036}", place) for place in range(500)]
    begin(records)
    records.complete(FIRST, many, constrained=False, export=["uuid"])
    stop, faults, reads = threading.Event(), list[str](), 0

    def write() -> None:
        while not stop.is_set():
            records.complete(FIRST, many, constrained=False, export=["uuid"])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while reads < 300:
            reads += 1
            if len((tmp_path / "jobs" / "12.env").read_text().splitlines()) != 504:
                faults.append("env")
            if len(json.loads((tmp_path / "jobs" / "12.json").read_text())["gpus"]) != 500:
                faults.append("json")
    finally:
        stop.set()
        writer.join()
    assert faults == []


def test_the_nodes_name_and_place() -> None:
    assert node_name(NodeConfig(name="a"), {"SLURMD_NODENAME": "b"}) == "a"
    assert node_name(NodeConfig(), {"SLURMD_NODENAME": "b"}) == "b"
    assert node_name(NodeConfig(), {}) == os.uname().nodename.split(".")[0]
    assert state_dir(NodeConfig(state_dir="/run/%n/x"), "n1") == Path("/run/n1/x")
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_an_attempt_whose_epilog_does_not_come_is_closed_and_no_other(
    records: JobRecords, tmp_path: Path
) -> None:
    begin(records)
    complete(records)
    assert [one.owner for one in records.running()] == [FIRST]
    begin(records, SECOND)
    records.close(FIRST)
    assert [one.owner for one in records.running()] == [SECOND]
    complete(records, SECOND)
    records.close(SECOND)
    assert records.running() == []
    assert [one.owner for one in records.ended()] == [SECOND]
    assert names(tmp_path) == {"12.json"}
    records.forget(SECOND)
    records.close(SECOND)
    assert records.all() == []
    assert records.find("12") is None


@pytest.mark.parametrize(
    ("owner", "user", "positions", "named"),
    [
        pytest.param(FIRST, "ann", [0, 1], None, id="the same again"),
        pytest.param(FIRST, "ann", None, None, id="the same, whatever its GPUs"),
        pytest.param(replace(FIRST, attempt=1), "ann", [2], None, id="a later attempt"),
        pytest.param(FIRST, "bob", [0, 1], FIRST, id="another user's"),
        pytest.param(FIRST, "ann", [0], FIRST, id="with other GPUs"),
        pytest.param(replace(FIRST, cluster="c2"), "bob", [2], None, id="another cluster's"),
    ],
)
def test_another_job_of_the_same_number_is_told_apart(
    records: JobRecords, owner: JobOwner, user: str, positions: list[int] | None, named: Any
) -> None:
    begin(records)
    complete(records)
    assert records.begin(owner, user, "boot 1", positions) == named
    found = records.find("12", owner.cluster)
    assert found is not None
    assert (found.owner, found.user) == (owner, user)
    # The GPUs of the one before reach no task of another.
    assert bool(found.gpus) == (named is None and owner == FIRST)


def test_a_job_of_another_cluster_leaves_the_record_of_the_first(
    records: JobRecords, tmp_path: Path
) -> None:
    other = replace(FIRST, cluster="c2")
    begin(records)
    complete(records)
    assert records.begin(other, "bob", "boot 1", [2]) is None
    records.complete(other, GPUS[:1], constrained=False, export=["uuid"])

    first, second = records.find("12", "c1"), records.find("12", "c2")
    assert first is not None and second is not None
    assert (first.owner, second.owner) == (FIRST, other)
    assert records.find("12") == first
    assert records.find_all("12") == [first, second]
    assert names(tmp_path) == {"12.json", "12.env", "12@c2.json", "12@c2.env"}
    assert not records.exists("12", "c3") and records.exists("12", "c2")
    assert records.end("12", cluster="c1") == replace(first, ended=True)
    records.forget(FIRST)
    assert records.find("12", "c1") is None
    assert records.end("12", cluster="c1") is None
    assert records.find("12", "c2") == second
    assert records.all() == [second]


def test_a_number_that_is_counted_anew_names_the_later_attempt_before(records: JobRecords) -> None:
    later = replace(FIRST, attempt=3)
    records.begin(later, "ann", "boot 1")
    assert records.begin(FIRST, "ann", "boot 1") == later
    assert records.begin(FIRST, "ann", "boot 1") is None
