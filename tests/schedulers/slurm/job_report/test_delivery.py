"""Reports are delivered one by one: what is refused, or takes too long, stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from canhazgpu.ledger.owner import JobOwner
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.job_report import delivery
from canhazgpu.schedulers.slurm.job_report.pending_reports import PendingReports

SACCT = """#!/bin/sh
for word; do case $word in --delimiter=*) d=${word#--delimiter=};; esac; done
for job in 1 2 3; do echo "$job$d$job${d}1${d}2${d}1$d"; done
"""
SACCTMGR = """#!/bin/sh
echo "$*" >> {calls}
case "$*" in *jobid={refused}*) {end};; esac
"""
ENDED_AT = 9e9
"""Later than now, whatever the time is: no report is too old."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(delivery, "write_syslog", lambda line, *_: lines.append(line))
    return lines


def deliver(place: Path, refused: str, end: str, timeout_s: float = 60.0) -> tuple[set[str], str]:
    """Deliver the reports of three jobs; return the jobs whose report is left, and the calls."""
    calls = place / "calls"
    calls.touch()
    manager = SACCTMGR.format(calls=calls, refused=refused, end=end)
    for name, text in (("sacct", SACCT), ("sacctmgr", manager)):
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    pending = PendingReports(place)
    for job in ("1", "2", "3"):
        pending.add(JobOwner("c1", job, 0), ENDED_AT, f"GPU {job}: never used")
    delivery.deliver_reports("n1", place, SlurmCommands(str(place), timeout_s, {}))
    return {report.job_id for _, report in pending.read()}, calls.read_text()


@pytest.mark.parametrize("refused", ["1", "2", "3"])
def test_one_that_is_refused_holds_up_no_other(
    tmp_path: Path, told: list[str], refused: str
) -> None:
    left, calls = deliver(tmp_path, refused, "echo no >&2; exit 1")
    assert left == {refused}
    assert calls.count("modify job") == 3
    assert "reports=1" in told[0]
    assert "sacctmgr --immediate failed: no" in told[0]
    assert "written=2" in told[1]


def test_nothing_is_begun_when_the_time_is_over(tmp_path: Path, told: list[str]) -> None:
    left, calls = deliver(tmp_path, "", "exec sleep 60", timeout_s=2.0)
    assert left == {"1", "2", "3"}
    # None on a machine where sacct took all its time.
    assert calls.count("modify job") <= 1
    assert "reports=3" in told[0]
