"""What is done to a job that cannot start, and what is written where; Slurm's commands recorded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from canhazgpu.errors import SchedulerError
from canhazgpu.ledger.values import JobOwner
from canhazgpu.schedulers.port import JobContext
from canhazgpu.schedulers.slurm.actions import MAX_COMMENT, SlurmActions, printable, queue_entry
from canhazgpu.schedulers.slurm.commands import SlurmCommands

JOB = JobContext(JobOwner("c1", "12", 0), "n1", "ann", 1000, (0,))
ARRAY = "14 12_1 RUNNING\n15 12_2 PENDING\n12 12_3 CONFIGURING\n"


class RecordedCommands(SlurmCommands):
    """Answers by the command's first words; an answer that is an error is raised."""

    def __init__(self, **answers: str | SchedulerError) -> None:
        self._answers = answers
        self.calls: list[tuple[str, ...]] = []

    def run(self, program: str, *arguments: str) -> str:
        self.calls.append((program, *arguments))
        name = arguments[0] if program == "scontrol" else program
        answer = self._answers.get(name, "")
        if isinstance(answer, SchedulerError):
            raise answer
        return answer

    @property
    def changes(self) -> list[tuple[str, ...]]:
        return [call for call in self.calls if call[0] != "squeue"]


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("12 12 RUNNING\n", ("12", "RUNNING")),
        (ARRAY, ("12_3", "CONFIGURING")),
        ("12 10+1 RUNNING\n", ("10", "RUNNING")),
        ("12 12+0 RUNNING\n", ("12", "RUNNING")),
        ("112 112 RUNNING\n", ("", "")),
        ("", ("", "")),
        ("slurm_load_jobs error\n", ("", "")),
        ("12 12 RUNNING more\n12\n", ("", "")),
    ],
)
def test_how_a_job_is_addressed(text: str, entry: tuple[str, str]) -> None:
    assert queue_entry(text, "12") == entry


@pytest.mark.parametrize("state", ["RUNNING", "CONFIGURING", "PENDING"])
def test_a_job_that_can_run_again_is_requeued_with_the_reason(state: str) -> None:
    commands = RecordedCommands(squeue=f"12 12 {state}")
    assert SlurmActions(commands, None).send_back(JOB, "GPU 1 is\nin use") == "requeued"
    assert commands.calls[0][0] == "squeue"
    assert commands.calls[0][-2:] == ("--jobs", "12")
    assert commands.changes == [
        ("scontrol", "update", "job=12", "comment=canhazgpu: GPU 1 is in use"),
        ("scontrol", "requeue", "12"),
    ]


def test_the_arrays_own_id_is_not_given_to_any_command() -> None:
    commands = RecordedCommands(squeue=ARRAY)
    SlurmActions(commands, None).send_back(JOB, "no")
    assert [call[2] for call in commands.changes] == ["job=12_3", "12_3"]


def test_a_job_that_cannot_be_requeued_is_told_and_ended() -> None:
    commands = RecordedCommands(
        squeue="12 12 RUNNING", requeue=SchedulerError("scontrol requeue failed: disabled")
    )
    done = SlurmActions(commands, None).send_back(JOB, "GPU 1 is in use")
    assert done == "cancelled, since it cannot be requeued (scontrol requeue failed: disabled)"
    assert commands.changes[-2:] == [
        ("scontrol", "notify", "12", "canhazgpu: GPU 1 is in use"),
        ("scancel", "12"),
    ]


def test_neither_comment_nor_notice_keeps_a_job_from_being_ended() -> None:
    refused = SchedulerError("no")
    commands = RecordedCommands(
        squeue="12 12 RUNNING", update=refused, requeue=refused, notify=refused
    )
    assert SlurmActions(commands, None).send_back(JOB, "x").startswith("cancelled")
    assert commands.changes[-1] == ("scancel", "12")


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", "COMPLETED", "FAILED", "TIMEOUT"])
def test_a_job_that_is_over_is_left_alone(state: str) -> None:
    commands = RecordedCommands(squeue=f"12 12 {state}")
    done = SlurmActions(commands, None).send_back(JOB, "x")
    assert done == f"left alone, it is {state} already"
    assert commands.changes == []


def test_a_job_that_slurm_does_not_know_is_left_alone() -> None:
    commands = RecordedCommands()
    assert SlurmActions(commands, None).send_back(JOB, "x") == "left alone, it is gone already"
    assert commands.changes == []


@pytest.mark.parametrize("failing", ["squeue", "scancel"])
def test_a_job_that_cannot_be_sent_back_is_said_to_run_unchecked(failing: str) -> None:
    answers = {"squeue": "12 12 RUNNING", "requeue": SchedulerError("refused")}
    commands = RecordedCommands(**{**answers, failing: SchedulerError("slurmctld is away")})
    done = SlurmActions(commands, None).send_back(JOB, "x")
    assert done == "runs unchecked, since it could not be sent back: slurmctld is away"


def test_a_comment_is_bounded_and_free_of_control_characters() -> None:
    commands = RecordedCommands(squeue="12 12 RUNNING")
    SlurmActions(commands, None).send_back(JOB, "\x1b[31m\x00\ud800" + "x" * 1000)
    comment = commands.changes[0][3].removeprefix("comment=")
    assert len(comment) == MAX_COMMENT
    assert comment.startswith("canhazgpu: ?[31m??xxx")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\r\n\tc  d", "a b c d"),
        ("\x1b[2Jx\x07\x7f\x00", "?[2Jx???"),
        ("e\u202ee\u200b", "e?e?"),
        ("Grün, 日本", "Grün, 日本"),
        ("\udcff", "?"),
        ("a\u2028b", "a b"),
    ],
)
def test_a_log_line_is_one_line_without_control_characters(text: str, line: str) -> None:
    assert printable(text) == line


def test_a_message_is_added_to_slurmds_log(tmp_path: Path) -> None:
    log = tmp_path / "slurmd.log"
    log.write_text("before\n")
    SlurmActions(RecordedCommands(), log).log("job 12: \x1b[31mno\nGPU")
    before, line = log.read_text().splitlines()
    assert before == "before"
    assert re.fullmatch(
        r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\] canhazgpu: job 12: \?\[31mno GPU", line
    )


def test_a_log_that_is_not_there_is_not_created(tmp_path: Path) -> None:
    SlurmActions(RecordedCommands(), tmp_path / "slurmd.log").log("x")
    SlurmActions(RecordedCommands(), tmp_path).log("x")
    SlurmActions(RecordedCommands(), None).log("x")
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    (tmp_path / "slurmd.log").symlink_to(tmp_path / "other")
    SlurmActions(RecordedCommands(), tmp_path / "slurmd.log").log("x")
    assert (tmp_path / "other").read_text() == ""


class LosingCommands(RecordedCommands):
    """Slurm requeues the job, and its answer is lost."""

    def run(self, program: str, *arguments: str) -> str:
        if arguments[0] == "requeue":
            self._answers = {"squeue": "12 12 PENDING"}
            raise SchedulerError("Socket timed out on send/recv operation")
        return super().run(program, *arguments)


def test_a_lost_answer_is_no_refusal() -> None:
    commands = LosingCommands(squeue="12 12 RUNNING")
    outcome = SlurmActions(commands, None).send_back(JOB, "in use")
    assert outcome.startswith("requeued")
    assert not [call for call in commands.calls if call[0] == "scancel"]


@pytest.mark.parametrize(
    ("squeue", "over", "gone"),
    [
        ("12 12 RUNNING", False, False),
        ("12 12 CONFIGURING", False, False),
        ("12 12 SUSPENDED", False, False),
        ("12 12 COMPLETING", True, False),
        ("12 12 PENDING", True, True),
        ("12 12 COMPLETED", True, True),
        ("", True, True),
        (SchedulerError("slurm_load_jobs error: Invalid job id specified"), True, True),
        (SchedulerError("squeue gave no answer in 10 s"), False, False),
    ],
)
def test_whether_a_job_is_over_or_gone(
    squeue: str | SchedulerError, over: bool, gone: bool
) -> None:
    actions = SlurmActions(RecordedCommands(squeue=squeue), None)
    assert (actions.is_over("12"), actions.is_gone("12")) == (over, gone)
