"""What the task prolog does where its job has no record: it asks the node's agent, if it can."""

from __future__ import annotations

import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hosts.no_agent import NO_AGENT
from plugins.fast_set import first_and_variants

from canhazgpu.agent.job_check_client import NO_AGENT as NOBODY_ASKED
from canhazgpu.conflict.checked_job import CheckedState
from canhazgpu.templates.render import render

from .task_prolog import NOBODY, SHELLS, TaskProlog, Told, record_text, shell_command, told_gpus

A = "GPU-aaaaaaaa-1111-2222-3333-444444444444"
B = "GPU-bbbbbbbb-1111-2222-3333-444444444444"
HIDDEN = "export CUDA_VISIBLE_DEVICES="


@dataclass(frozen=True, slots=True)
class AskingTask:
    """A task prolog whose client ends as the test says, in place of the real one."""

    prolog: TaskProlog

    @property
    def client(self) -> Path:
        return self.prolog.directory / "client.py"

    @property
    def socket(self) -> Path:
        return self.prolog.state / self.prolog.node / "agent" / "agent.sock"

    def client_does(self, body: str) -> None:
        asked = self.prolog.directory / "asked"
        self.client.write_text(
            f"import os, sys\nopen({str(asked)!r}, 'a').write(sys.argv[1] + '\\n')\n{body}\n"
        )

    def client_ends(self, status: int, said: str = "") -> None:
        self.client_does(f"print({said!r}, end='', flush=True)\nos._exit({status})")

    def asked(self) -> list[str]:
        path = self.prolog.directory / "asked"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(params=first_and_variants(SHELLS))
def task(request: pytest.FixtureRequest) -> Iterator[AskingTask]:
    directory = Path(tempfile.mkdtemp(prefix="asking-task-"))
    made = AskingTask(TaskProlog.at(directory, shell_command(request.param)))
    values = {**NO_AGENT, "python": sys.executable, "job_client": str(made.client)}
    made.prolog.script.write_text(
        render("task_prolog.sh", {"state_dir": f"{made.prolog.state}/%n", **values})
    )
    made.socket.parent.mkdir()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(made.socket))
    made.client_ends(int(CheckedState.CHECKED))
    yield made
    listening.close()
    shutil.rmtree(directory)


def test_a_checked_job_has_the_gpus_on_its_record(task: AskingTask) -> None:
    record = str(task.prolog.record(7))
    text = record_text([(1, A, 5, "/dev/null")])
    task.client_does(f"open({record!r}, 'w').write({text!r})\nos._exit(0)")

    assert task.prolog.run_as_job("1") == Told(told_gpus(A), 0, "")
    assert task.asked() == [str(task.socket)]
    # The next task finds the record, and asks nobody.
    assert task.prolog.run_as_job("1") == Told(told_gpus(A), 0, "")
    assert len(task.asked()) == 1


def test_a_job_that_was_sent_back_runs_none_of_its_users_code(task: AskingTask) -> None:
    task.client_ends(int(CheckedState.SENT_BACK), "GPU 0 is in use by bob; job requeued")
    told = task.prolog.run_as_job("1")
    assert told.status == 75
    assert (
        "print canhazgpu: this task does not run: GPU 0 is in use by bob; job requeued"
        in told.lines
    )
    assert HIDDEN in told.lines


@pytest.mark.parametrize(
    ("status", "why"),
    [(int(CheckedState.REFUSED), "busy"), (9, "it gave no answer"), (0, "has no record")],
)
def test_a_gpu_that_nobody_checked_is_hidden(task: AskingTask, status: int, why: str) -> None:
    task.client_ends(status, "busy" if why == "busy" else "")
    told = task.prolog.run_as_job("1")
    assert told.status == 0 and told.lines[0] == HIDDEN
    assert why in told.lines[1]


def test_a_client_that_is_killed_has_checked_nothing(task: AskingTask) -> None:
    task.client_does("os.kill(os.getpid(), 9)")
    told = task.prolog.run_as_job("1")
    assert HIDDEN in told.lines and "it gave no answer" in " ".join(told.lines)


def test_a_task_that_is_interrupted_before_the_answer_runs_none_of_its_users_code(
    task: AskingTask,
) -> None:
    task.client_does("os.kill(os.getpid(), 2)")
    # Some shells end by the signal that ended what they ran.
    assert task.prolog.run_as_job("1").status in (75, -signal.SIGINT)


def test_a_task_that_slurm_ends_before_the_answer_runs_none_of_its_users_code(
    task: AskingTask,
) -> None:
    task.client_does("os.kill(os.getpid(), 15)")
    told = task.prolog.run_as_job("1")
    assert told.status == 75
    assert HIDDEN in told.lines
    assert "it was ended while the node's agent checked its job" in " ".join(told.lines)


@pytest.mark.parametrize("status", [int(CheckedState.LEFT), NOBODY_ASKED])
def test_what_a_policy_left_or_no_agent_was_asked_about_is_slurms(
    task: AskingTask, status: int
) -> None:
    """But for the GPUs of other jobs."""
    task.client_ends(status)
    assert task.prolog.run_as_job("1") == Told([], 0, "")
    task.prolog.record(8).write_text(record_text([(1, B, 1, "/dev/null")]))
    assert HIDDEN in task.prolog.run_as_job("1").lines


@pytest.mark.parametrize("missing", ["socket", "client", "python"])
def test_without_an_agent_nobody_is_asked(task: AskingTask, missing: str) -> None:
    if missing == "python":
        text = task.prolog.script.read_text()
        task.prolog.script.write_text(text.replace(sys.executable, "/nonexistent/python3"))
    else:
        getattr(task, missing).unlink()
    assert task.prolog.run_as_job("1") == Told([], 0, "")
    assert task.asked() == []


@pytest.mark.parametrize("visible", [None, "", "NoDevFiles"])
def test_a_task_without_gpus_asks_nobody(task: AskingTask, visible: str | None) -> None:
    task.client_ends(int(CheckedState.REFUSED))
    assert task.prolog.run_as_job(visible).status == 0
    assert task.asked() == []


def test_a_directory_that_cannot_be_searched_is_no_missing_record(task: AskingTask) -> None:
    directory = task.prolog.record(7).parent
    for path in (task.prolog.directory, task.prolog.state):
        path.chmod(0o755)
    directory.chmod(0o700)
    told = task.prolog.run_as_job("1", user=NOBODY)
    assert "cannot be searched" in " ".join(told.lines) and HIDDEN in told.lines
    assert task.asked() == []


def test_the_users_libraries_are_none_of_the_clients(task: AskingTask) -> None:
    seen = task.prolog.directory / "seen"
    names = "('LD_PRELOAD', 'LD_LIBRARY_PATH')"
    task.client_does(
        f"open({str(seen)!r}, 'w').write(str([n for n in {names} if n in os.environ]))\nos._exit(1)"
    )
    task.prolog.run_as_job("1", LD_LIBRARY_PATH="/nowhere")
    assert seen.read_text() == "[]"
