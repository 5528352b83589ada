"""A prolog that dies at any moment leaves nothing that its job's epilog does not clear away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from canhazgpu.ledger.local.jobs.job_records import JobRecords

pytestmark = pytest.mark.slow

PROLOG = "import os\nfrom canhazgpu.ledger.local.jobs.job_records import JobRecords\n{change}\n"
RUN = "from canhazgpu.prolog.main import main\nmain()\n"
KILLED = "lambda *a, **k: os.kill(os.getpid(), 9)"
AFTER = (
    "done = JobRecords.{name}\n"
    "JobRecords.{name} = lambda *a, **k: (done(*a, **k), os.kill(os.getpid(), 9))"
)
STAGES = {
    "before begin": (f"JobRecords.begin = {KILLED}", 0, None),
    "after begin": (AFTER.format(name="begin"), 0, {"12.json"}),
    "between reserve and complete": (f"JobRecords.complete = {KILLED}", 2, {"12.json"}),
    "after complete": (AFTER.format(name="complete"), 2, {"12.json", "12.env"}),
}


@pytest.mark.parametrize("stage", STAGES)
def test_the_epilog_of_a_killed_prolog_clears_all_away(node: Any, stage: str) -> None:
    change, reserved, left = STAGES[stage]
    killed = node.python("-c", PROLOG.format(change=change) + RUN)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(node.owners_by_gpu()) == reserved
    if left is not None:
        assert node.record_files() == left
    node.run("epilog")
    assert node.owners_by_gpu() == {}
    assert node.record_files() == set()
    assert node.log() == ""


def test_a_whole_life_leaves_the_gpus_free_and_a_scan_behind(node: Any) -> None:
    node.run("prolog")
    assert set(node.owners_by_gpu().values()) == {"job:c1:12:0"}
    assert node.record_files() == {"12.json", "12.env"}
    node.run("epilog")
    assert node.owners_by_gpu() == {}
    assert node.record_files() == set()
    assert node.log() == ""
    scan = node.view().scan
    assert scan is not None
    assert len(scan.gpus) == 4


def test_the_next_attempt_takes_over_from_a_killed_one(node: Any) -> None:
    node.python("-c", PROLOG.format(change=STAGES["after complete"][0]) + RUN)
    node.run("prolog", SLURM_JOB_RESTART_COUNT="1")
    assert set(node.owners_by_gpu().values()) == {"job:c1:12:1"}
    # The late epilog of the killed attempt, then that of its successor.
    node.run("epilog", SLURM_JOB_RESTART_COUNT="1")
    assert set(node.owners_by_gpu().values()) == {"job:c1:12:1"}
    node.run("epilog", SLURM_JOB_RESTART_COUNT="1")
    assert node.owners_by_gpu() == {}


@pytest.mark.parametrize("text", ["", "[]", "7", '{"owner": {"cluster"'])
def test_the_epilog_releases_a_job_whose_record_cannot_be_read(node: Any, text: str) -> None:
    node.run("prolog")
    (node.files / "run" / "jobs" / "12.json").write_text(text)
    node.run("epilog")
    assert node.owners_by_gpu() == {}
    assert node.record_files() == set()
    assert "12.json cannot be read" in node.log()


def test_an_epilog_that_is_told_of_no_gpus_clears_away_what_it_cannot_read(node: Any) -> None:
    node.run("prolog")
    (node.files / "run" / "jobs" / "12.json").write_text("{")
    node.run("epilog", SLURM_JOB_GPUS="")
    assert node.owners_by_gpu() == {}
    assert node.record_files() == set()


def test_a_list_of_gpus_that_cannot_be_read_does_not_drain_the_node(node: Any) -> None:
    gres = Path(node.files / "gres.conf")
    gres.write_text("Name=gpu File=/dev/nvidia[0-7:2]\n")
    node.run("prolog")
    by_slurm = '"slurm"' in (node.files / "config.toml").read_text()
    assert ("is not a list of names" in node.log()) == by_slurm
    assert len(node.owners_by_gpu()) == (0 if by_slurm else 2)
    node.run("epilog")
    assert node.owners_by_gpu() == {}


def test_the_epilog_releases_where_no_record_can_be_written(node: Any) -> None:
    node.run("prolog")
    # A directory at the draft's name: like a full disk, it stops root too.
    (node.files / "run" / "jobs" / ".new").mkdir()
    node.run("epilog")
    assert node.owners_by_gpu() == {}
    assert "cannot keep the node's records" in node.log()


def test_a_second_run_looks_again_at_what_the_first_was_granted(node: Any) -> None:
    node.slurm()
    change = STAGES["between reserve and complete"][0]
    node.python("-c", PROLOG.format(change=change) + RUN)
    assert len(node.owners_by_gpu()) == 2
    for gpu in node.state.node("n1").gpus:
        gpu.override_used(8000)
    node.run("prolog", HOOK_LOST_S="0")
    assert node.owners_by_gpu() == {}
    assert node.scheduler_orders()[-1] == "scontrol requeue 12"


def test_a_second_run_releases_what_an_earlier_job_of_its_number_held(node: Any) -> None:
    node.run("prolog", SLURM_JOB_RESTART_COUNT="3", SLURM_JOB_GPUS="2,3")
    node.python("-c", PROLOG.format(change=STAGES["after begin"][0]) + RUN)
    assert set(node.owners_by_gpu().values()) == {"job:c1:12:3"}
    node.run("prolog", HOOK_LOST_S="0")
    assert set(node.owners_by_gpu().values()) == {"job:c1:12:0"}


STOPPED_BEFORE_COMMIT = """
import os, signal
from canhazgpu.ledger.local.book_grants import BookGrants
done = BookGrants.commit
def commit(self, *given, **named):
    os.kill(os.getpid(), signal.SIGSTOP)
    return done(self, *given, **named)
BookGrants.commit = commit
"""


@pytest.mark.parametrize("ends", ["before its epilog has released", "after"])
def test_a_prolog_that_goes_on_after_its_job_has_ended_grants_nothing(node: Any, ends: str) -> None:
    """It was stopped before its last step; meanwhile the next job gets the same GPUs."""
    command = [sys.executable, "-I", "-c", STOPPED_BEFORE_COMMIT + RUN]
    prolog = subprocess.Popen(command, env=node.environ())
    os.waitid(os.P_PID, prolog.pid, os.WSTOPPED)
    if ends == "after":
        node.run("epilog")
        node.run("prolog", SLURM_JOB_ID="13")
        assert set(node.owners_by_gpu().values()) == {"job:c1:13:0"}
    else:
        JobRecords(node.files / "run").end("12", last=True)
    prolog.send_signal(signal.SIGCONT)
    assert prolog.wait(30) == 0
    assert "nothing is granted: its attempt has ended" in node.log()
    assert "requeue" not in node.log()
    held = {"job:c1:13:0"} if ends == "after" else set()
    assert set(node.owners_by_gpu().values()) == held
