"""The reports that a node has yet to deliver."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from canhazgpu.ledger.owner import JobOwner
from canhazgpu.schedulers.slurm.job_report.accounted_job import JobReport
from canhazgpu.schedulers.slurm.job_report.pending_reports import (
    DIRECTORY,
    MAX_REPORTS,
    PendingReports,
)

LINE = "GPU 0: never used"


def read(state_dir: Path) -> list[JobReport]:
    return [report for _, report in PendingReports(state_dir).read()]


def test_what_is_added_is_read_each_attempt_by_itself(tmp_path: Path) -> None:
    assert read(tmp_path) == []
    for attempt in (0, 1, 1):
        PendingReports(tmp_path).add(JobOwner("demo", "7", attempt), 5.0, LINE)
    assert read(tmp_path) == [JobReport("7", 5.0, LINE)] * 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff",
        b'{"job_id": "1;x", "ended_at": 1, "line": ""}',
        b"[" * 99999,
    ],
)
def test_a_file_that_is_none_of_ours_is_removed(tmp_path: Path, content: bytes) -> None:
    PendingReports(tmp_path).add(JobOwner("demo", "7", 0), 5.0, LINE)
    path = tmp_path / DIRECTORY / "8-0.json"
    path.write_bytes(content)
    assert read(tmp_path) == [JobReport("7", 5.0, LINE)]
    assert not path.exists()


def test_what_cannot_be_removed_keeps_nobody_from_the_rest(tmp_path: Path) -> None:
    PendingReports(tmp_path).add(JobOwner("demo", "7", 0), 5.0, LINE)
    (tmp_path / DIRECTORY / "8-0.json").mkdir()
    os.mkfifo(tmp_path / DIRECTORY / "9-0.json")
    assert read(tmp_path) == [JobReport("7", 5.0, LINE)]


def test_of_too_many_the_oldest_are_lost(tmp_path: Path) -> None:
    for job in range(MAX_REPORTS + 2):
        PendingReports(tmp_path).add(JobOwner("demo", str(job + 1), 0), 5.0, LINE)
        os.utime(tmp_path / DIRECTORY / f"{job + 1}-0.json", (job, job))
    left = {report.job_id for report in read(tmp_path)}
    assert len(left) == MAX_REPORTS
    assert not left & {"1", "2"}
