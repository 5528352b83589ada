"""What changes between a hook's look at processes and its signal to them."""

from __future__ import annotations

import pwd
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import fake_nvml

pytestmark = [
    pytest.mark.parametrize("node", ["slurm"], indirect=True),
    pytest.mark.slow,
]

PAUSE = """
import os, pathlib, time
from canhazgpu.node.termination import ProcessTerminator
first = ProcessTerminator.__init__
def hold(self, pids):
    first(self, pids)
    pathlib.Path({place!r}, "held").touch()
    while not pathlib.Path({place!r}, "go").exists():
        time.sleep(0.02)
ProcessTerminator.__init__ = hold
from canhazgpu.{hook}.main import main
main()
"""


@pytest.fixture
def bob(people: tuple[str, str]) -> str:
    return people[1]


def uid_of(user: str) -> int:
    return pwd.getpwnam(user).pw_uid


def run_with(node: Any, hook: str, change: Callable[[], None], **variables: str) -> None:
    """Run a hook, and make the change once it holds the processes that it may end."""
    program = PAUSE.format(place=str(node.files), hook=hook)
    running = subprocess.Popen([sys.executable, "-I", "-c", program], env=node.environ(**variables))
    deadline = time.monotonic() + 60
    while not (node.files / "held").exists():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    change()
    (node.files / "go").touch()
    assert running.wait(60) == 0


@contextmanager
def moved_in(node: Any, user: str) -> Iterator[list[fake_nvml.Process]]:
    """A list that gets a process of the user on the job's first GPU when it is told to."""
    started: list[fake_nvml.Process] = []
    try:
        yield started
    finally:
        for one in started:
            one.kill()


def test_whoever_reserves_meanwhile_is_left_alone(node: Any, bob: str) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict": "kill,requeue"})
    with fake_nvml.start_gpu_process(node.gpu(0), 8000, user=bob) as process:
        run_with(node, "prolog", lambda: node.reserve(0, bob, uid_of(bob)) and None)
        assert process.alive
    assert node.scheduler_orders()[-1] == "scontrol requeue 12"
    assert "ended PID" not in node.log()


def test_nobody_is_ended_beside_one_who_stays_and_came_meanwhile(node: Any, bob: str) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict": "kill,requeue"})
    with (
        fake_nvml.start_gpu_process(node.gpu(0), 8000, user=bob) as process,
        moved_in(node, "root") as others,
    ):

        def change() -> None:
            others.append(fake_nvml.start_gpu_process(node.gpu(0), 8000, user="root"))

        run_with(node, "prolog", change)
        assert process.alive and others[0].alive
    assert node.scheduler_orders()[-1] == "scontrol requeue 12"


def test_one_that_came_meanwhile_is_neither_ended_nor_said_to_be(node: Any, bob: str) -> None:
    """As where a process forks while it is ended: the new one is the next step's."""
    node.slurm()
    node.configure(slurm={"on_conflict": "kill,requeue"})
    with (
        fake_nvml.start_gpu_process(node.gpu(0), 8000, user=bob) as process,
        moved_in(node, bob) as others,
    ):

        def change() -> None:
            others.append(fake_nvml.start_gpu_process(node.gpu(0), 8000, user=bob))

        run_with(node, "prolog", change)
        assert not process.alive and others[0].alive
        ended = [line for line in node.log_lines() if "ended PID" in line]
        assert len(ended) == 1 and f"ended PID {process.pid} " in ended[0]
        assert f"PID {others[0].pid} " in node.scheduler_orders()[-2]
    assert node.scheduler_orders()[-1] == "scontrol requeue 12"
    assert node.owners_by_gpu() == {}


def test_a_job_of_the_user_that_begins_meanwhile_spares_what_the_last_one_left(
    node: Any, ann: dict[str, str]
) -> None:
    node.slurm()
    node.run("prolog", **ann)
    user, uid = ann["SLURM_JOB_USER"], ann["SLURM_JOB_UID"]
    with fake_nvml.start_gpu_process(node.gpu(0), 8000, user=user) as process:
        run_with(node, "epilog", lambda: node.slurm(squeue=f'echo "13 {uid} RUNNING"'), **ann)
        assert process.alive
    assert node.owners_by_gpu() == {}
    assert "another job of" in node.log()
