"""The records of runs: what was written is read, and nothing else decides about a run."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from canhazgpu.ledger.local.runs.run_files import RunFiles
from canhazgpu.ledger.local.runs.run_record import (
    RunRecord,
    run_record_from_json,
    run_record_to_json,
)
from canhazgpu.ledger.owner import RUN
from canhazgpu.ledger.values import RECORD_ERRORS, Claim
from canhazgpu.node.process_id import ProcessId

BOOT = "this boot"
CLAIM = Claim(
    "run:ab",
    RUN,
    "ann",
    1000,
    note="a note",
    boot_id=BOOT,
    processes=(ProcessId(4711, 99),),
    pid_namespace=5,
)
RECORD = RunRecord(CLAIM, "run:ab:secret", ("GPU-0", "GPU-1"), 1000, (1000, 27), 12.5, 60.0, True)


def renamed(owner: str, boot_id: str = BOOT) -> RunRecord:
    return replace(RECORD, claim=replace(CLAIM, owner=owner, boot_id=boot_id))


BESIDE_AGENT = replace(CLAIM, processes=(ProcessId(4711, 99), ProcessId(1, 2)))


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        replace(RECORD, timeout_s=None, ends_when_lost=False),
        replace(RECORD, claim=BESIDE_AGENT),
    ],
)
def test_a_record_is_read_as_it_was_written(record: RunRecord) -> None:
    assert run_record_from_json(run_record_to_json(record)) == record


def test_what_follows_from_a_record() -> None:
    assert (RECORD.owner, RECORD.uid, RECORD.command) == ("run:ab", 1000, ProcessId(4711, 99))
    assert RECORD.ends_at_uptime_s == 72.5
    assert replace(RECORD, timeout_s=None).ends_at_uptime_s is None


@pytest.mark.parametrize(
    "change",
    [
        {"marker": 5},
        {"gpus": [1]},
        {"gid": -1},
        {"gid": True},
        {"groups": ["wheel"]},
        {"started_at_uptime_s": "soon"},
        {"started_at_uptime_s": float("nan")},
        {"timeout_s": -1},
        {"claim": {}},
        {"claim": {"owner": "run:ab", "type": "run", "user": "ann", "uid": 1000}},
        {
            "claim": {
                "owner": "a",
                "type": "b",
                "user": "c",
                "processes": [{"pid": 1, "started": 2}],
            }
        },
    ],
)
def test_what_is_no_record_is_refused(change: dict[str, object]) -> None:
    data = {**json.loads(run_record_to_json(RECORD)), **change}
    with pytest.raises(RECORD_ERRORS):
        run_record_from_json(json.dumps(data))


def test_runs_are_written_read_and_removed(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    assert files.read(BOOT) == ()
    other = renamed("run:cd")
    for one in (RECORD, other, RECORD):
        files.write(one)
    assert files.read(BOOT) == (RECORD, other)
    files.remove(RECORD.owner)
    files.remove(RECORD.owner)
    assert files.read(BOOT) == (other,)


def test_only_its_user_reads_a_record(tmp_path: Path) -> None:
    """It holds the secret word of the run's marker."""
    mask = os.umask(0)
    try:
        RunFiles(tmp_path).write(RECORD)
    finally:
        os.umask(mask)
    (path,) = (tmp_path / "runs").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_what_is_no_run_of_this_boot_is_left_out_and_then_removed(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    for one in (RECORD, renamed("run:cd", "an earlier boot")):
        files.write(one)
    (files.directory / "run:garbage.json").write_bytes(b"\xff{")
    (files.directory / "run:other.json").write_text(run_record_to_json(RECORD))
    (files.directory / "run:link.json").symlink_to("run:ab.json")
    (files.directory / "run:dir.json").mkdir()
    (files.directory / ".run:ab.json.new").write_text("a draft")
    killed = files.directory / ".run:ef.json.new"
    killed.write_text("a draft of long ago")
    os.utime(killed, (0, 0))
    assert files.read(BOOT) == (RECORD,)
    files.remove_others(BOOT)
    assert files.read(BOOT) == (RECORD,)
    left = {path.name for path in files.directory.iterdir()}
    assert left == {"run:ab.json", "run:dir.json", ".run:ab.json.new"}


@pytest.mark.parametrize("owner", ["../book", "a/b", ".."])
def test_an_owner_names_no_file_elsewhere(tmp_path: Path, owner: str) -> None:
    with pytest.raises(ValueError, match="no owner"):
        RunFiles(tmp_path).write(renamed(owner))


def test_a_note_that_is_no_text_is_written_all_the_same(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    files.write(replace(RECORD, claim=replace(CLAIM, note=os.fsdecode(b"a \xff"))))
    assert files.load("run:ab", BOOT) == replace(RECORD, claim=replace(CLAIM, note="a ?"))
