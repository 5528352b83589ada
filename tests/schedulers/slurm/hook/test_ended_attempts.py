"""A prolog whose attempt has ended, or whose client is gone, grants nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hosts.running_agent import run_hook
from polling import poll_until
from process_details import open_files

from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.job_lock import job_lock

pytestmark = pytest.mark.slow
slurms_choice = pytest.mark.parametrize("node", ["slurm"], indirect=True)


def requeues(node: Any) -> list[str]:
    starts = ("scontrol requeue", "scancel")
    return [one for one in node.scheduler_orders() if one.startswith(starts)]


def record_names(node: Any) -> list[str]:
    return [path.name for path in (node.files / "run").glob("jobs/*")]


@pytest.fixture
def waiting(node: Any) -> subprocess.Popen[str]:
    """A prolog that waits for a GPU that somebody has reserved."""
    node.slurm()
    node.configure(slurm={"on_conflict": "wait:29, requeue", "hook_deadline_s": 50.0})
    node.reserve(0)
    hook: subprocess.Popen[str] = node.start("prolog")
    poll_until(lambda: list((node.files / "run" / "hook-locks").glob("12.lock")))
    return hook


@slurms_choice
def test_an_epilog_ends_the_prolog_that_is_under_way(node: Any, waiting: Any) -> None:
    node.run("epilog")

    # The epilog waited for it, so it has ended.
    assert waiting.wait(60) == 0
    assert {one.claim.owner for one in node.reservations()} == {"manual:1"}
    assert requeues(node) == []
    assert any("nothing is granted" in line for line in node.log_lines())
    assert node.record_files() == set()


@slurms_choice
def test_a_prolog_that_was_killed_goes_on_nowhere(node: Any, waiting: Any) -> None:
    waiting.kill()
    waiting.wait()

    # Its second run takes over at once: what worked for the first has stopped.
    node.configure(slurm={"on_conflict": "requeue"})
    node.run("prolog", HOOK_LOST_S="1")

    assert {one.claim.owner for one in node.reservations()} == {"manual:1"}
    assert len(requeues(node)) == 1


@slurms_choice
def test_a_handler_that_is_killed_is_followed_by_the_hook_itself(
    node: Any, waiting: Any, way: Any
) -> None:
    if way is None:
        waiting.kill()
        waiting.wait()
    else:
        (handler,) = [pid for pid in way.children() if holds_lock(pid)]
        os.kill(handler, signal.SIGKILL)
        assert waiting.wait(60) == 121
        node.started.clear()

    for gpu in node.all_uuids():
        node.ledger.release("n1", "manual:1", "done") if gpu else None
    done = subprocess_of_own_process(node, HOOK_LOST_S="1")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert set(node.owners_by_gpu().values()) == {"job:c1:12:0"}


def holds_lock(pid: int) -> bool:
    return any(one.endswith("/12.lock") for one in open_files(pid))


def subprocess_of_own_process(node: Any, **variables: str) -> subprocess.CompletedProcess[str]:
    from forking_python import own_interpreter

    return own_interpreter().run(["-m", "canhazgpu.prolog.main"], node.environ(**variables), 60)


@slurms_choice
def test_a_second_run_after_the_epilog_grants_nothing(node: Any) -> None:
    began = f"{uptime_s():.2f}"
    node.run("prolog", HOOK_BEGAN_S=began)
    node.run("epilog")

    node.run("prolog", HOOK_BEGAN_S=began, HOOK_LOST_S="1")

    assert node.owners_by_gpu() == {}
    assert node.record_files() == set()
    assert node.scheduler_orders() == []


@slurms_choice
def test_a_new_job_with_the_same_number_is_served(node: Any) -> None:
    for _ in range(2):
        node.run("prolog", HOOK_BEGAN_S=f"{uptime_s():.2f}")
        assert len(node.owners_by_gpu()) == 2
        node.run("epilog")
    node.run("prolog")
    assert len(node.owners_by_gpu()) == 2


@slurms_choice
def test_one_run_of_an_epilog_counts_once(node: Any) -> None:
    # Given an attempt whose epilog is still to come, and the next one
    node.run("prolog")
    node.run("prolog", SLURM_JOB_RESTART_COUNT="1")

    for _ in range(2):
        node.run("epilog", HOOK_RUN="700-1.00", SLURM_JOB_RESTART_COUNT="1")

    assert set(node.owners_by_gpu().values()) == {"job:c1:12:1"}
    node.run("epilog", HOOK_RUN="701-2.00", SLURM_JOB_RESTART_COUNT="2")
    assert node.owners_by_gpu() == {}


@slurms_choice
def test_a_prolog_waits_for_another_hook_of_its_job(node: Any) -> None:
    with job_lock(node.files / "run", "12"):
        hook = node.start("prolog")
        poll_until(lambda: "12.json" in record_names(node))
        assert node.owners_by_gpu() == {}
    assert hook.wait(60) == 0
    assert len(node.owners_by_gpu()) == 2


@slurms_choice
def test_an_epilog_releases_whoever_holds_the_lock(node: Any) -> None:
    node.configure(slurm={"hook_deadline_s": 16.0})
    node.run("prolog")
    with job_lock(node.files / "run", "12"):
        node.run("epilog")
    assert node.owners_by_gpu() == {}
    assert any("still under way" in line for line in node.log_lines())


def test_a_record_is_current_until_its_attempt_ends(tmp_path: Path) -> None:
    records, owner = JobRecords(tmp_path), JobOwner("c1", "12", 0)
    changes: list[Callable[[], object]] = [
        lambda: records.end("12"),
        lambda: records.close(owner),
        lambda: records.begin(JobOwner("c1", "12", 1), "ann", None),
    ]
    for change in changes:
        records.begin(owner, "ann", None)
        found = records.find("12")
        assert found is not None
        assert records.is_current(owner, found.began_ticks)
        assert not records.is_current(owner, -1)
        change()
        assert not records.is_current(owner, found.began_ticks)
        records.forget(owner)
        (tmp_path / "jobs" / "12.json").unlink(missing_ok=True)


def test_the_health_check_is_answered_too(node: Any, way: Any) -> None:
    if way is not None:
        done = run_hook(way, "health_check", node.environ())
        assert (done.returncode, done.stderr) == (0, "")
