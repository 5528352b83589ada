"""What is done to a job that cannot start, and what is written where; Slurm's commands recorded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from canhazgpu.errors import SchedulerError
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.node.system_log import single_line
from canhazgpu.schedulers.port import ActionOutcome, ActionResult, JobContext
from canhazgpu.schedulers.slurm.control.actions import SlurmActions
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.control.queries import parse_job_entry
from canhazgpu.schedulers.slurm.control.shortened_comment import MAX_COMMENT

JOB = JobContext(JobOwner("c1", "12", 0), "n1", "ann", 1000, (0,))
ARRAY = "14 12_1 RUNNING\n15 12_2 PENDING\n12 12_3 CONFIGURING\n"


class RecordedCommands(SlurmCommands):
    """Answers by the command's first words; an answer that is an error is raised."""

    def __init__(self, **answers: str | SchedulerError) -> None:
        self._answers = answers
        self.calls: list[tuple[str, ...]] = []

    def run(self, program: str, *arguments: str, share: float = 1.0) -> str:
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
    assert parse_job_entry(text, "12") == entry


def requeue(commands: RecordedCommands, note: str = "canhazgpu: no", **how: bool) -> ActionResult:
    return SlurmActions(commands, None).requeue(JOB, note, **how)


def end(commands: RecordedCommands) -> ActionResult:
    return SlurmActions(commands, None).cancel(JOB, "canhazgpu: GPU 1 is in use")


@pytest.mark.parametrize("state", ["RUNNING", "CONFIGURING", "PENDING"])
@pytest.mark.parametrize(
    ("hold", "verb", "done"), [(False, "requeue", "requeued"), (True, "requeuehold", "held")]
)
def test_a_job_that_can_run_again_is_requeued_with_the_reason(
    state: str, hold: bool, verb: str, done: str
) -> None:
    commands = RecordedCommands(squeue=f"12 12 {state}")
    note = "canhazgpu: requeue 1/20: GPU 1 is\nin use"
    assert requeue(commands, note, hold=hold) == ActionResult(ActionOutcome.DONE, done)
    assert commands.calls[0][0] == "squeue"
    assert commands.calls[0][-2:] == ("--jobs", "12")
    assert commands.changes == [
        ("scontrol", "update", "job=12", "comment=canhazgpu: requeue 1/20: GPU 1 is in use"),
        ("scontrol", verb, "12"),
    ]


def test_the_arrays_own_id_is_not_given_to_any_command() -> None:
    commands = RecordedCommands(squeue=ARRAY)
    requeue(commands)
    end(commands)
    SlurmActions(commands, None).notify_user(JOB, "no")
    addresses = [
        call[-2] if call[1] in ("update", "notify") else call[-1] for call in commands.changes
    ]
    assert set(addresses) == {"job=12_3", "12_3"}


def test_a_job_that_cannot_be_requeued_is_left_to_the_policy() -> None:
    refusal = SchedulerError("scontrol requeue failed: disabled")
    commands = RecordedCommands(squeue="12 12 RUNNING", requeue=refusal)
    assert requeue(commands) == ActionResult(
        ActionOutcome.REFUSED, "scontrol requeue failed: disabled"
    )


def test_a_job_that_is_ended_is_told_first() -> None:
    commands = RecordedCommands(squeue="12 12 RUNNING")
    assert end(commands) == ActionResult(ActionOutcome.DONE, "cancelled")
    assert commands.changes[-2:] == [
        ("scontrol", "notify", "12", "canhazgpu: GPU 1 is in use"),
        ("scancel", "12"),
    ]


def test_neither_comment_nor_notice_keeps_a_job_from_its_fate() -> None:
    refused = SchedulerError("no")
    commands = RecordedCommands(squeue="12 12 RUNNING", update=refused, notify=refused)
    assert requeue(commands).outcome is ActionOutcome.DONE
    assert end(commands) == ActionResult(ActionOutcome.DONE, "cancelled")
    SlurmActions(commands, None).notify_user(JOB, "no")
    assert commands.changes[-1] == ("scontrol", "notify", "12", "no")


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", "COMPLETED", "FAILED", "TIMEOUT"])
@pytest.mark.parametrize("order", [requeue, end])
def test_a_job_that_is_over_is_left_alone(state: str, order: Any) -> None:
    commands = RecordedCommands(squeue=f"12 12 {state}")
    assert order(commands) == ActionResult(ActionOutcome.DONE, f"left alone, it is {state} already")
    assert commands.changes == []


@pytest.mark.parametrize("order", [requeue, end])
def test_a_job_that_slurm_does_not_know_is_left_alone(order: Any) -> None:
    commands = RecordedCommands()
    assert order(commands) == ActionResult(ActionOutcome.DONE, "left alone, it is gone already")
    assert commands.changes == []


@pytest.mark.parametrize(
    ("order", "failing"), [(requeue, "squeue"), (end, "squeue"), (end, "scancel")]
)
def test_a_job_that_cannot_be_sent_back_is_said_to_run_unchecked(order: Any, failing: str) -> None:
    answers = {"squeue": "12 12 RUNNING"}
    commands = RecordedCommands(**{**answers, failing: SchedulerError("slurmctld is away")})
    text = "runs unchecked, since it could not be sent back: slurmctld is away"
    assert order(commands) == ActionResult(ActionOutcome.FAILED, text)


@pytest.mark.parametrize("state", ["idle", "mixed", "allocated", "idle*"])
def test_a_node_is_drained_with_a_reason_of_our_own(state: str) -> None:
    commands = RecordedCommands(sinfo=f"n1 {state}\n")
    assert (
        SlurmActions(commands, None).drain("n1", "canhazgpu: job 12: x").outcome
        is ActionOutcome.DONE
    )
    drain = ("scontrol", "update", "nodename=n1", "state=drain", "reason=canhazgpu: job 12: x")
    assert commands.changes[-1] == drain


@pytest.mark.parametrize("state", ["drained", "draining", "draining*", "down", "down*", "drained*"])
def test_a_node_out_of_service_keeps_the_reason_it_has(state: str) -> None:
    commands = RecordedCommands(sinfo=f"n2 idle\nn1 {state}\nn1 {state}\n")
    answer = SlurmActions(commands, None).drain("n1", "canhazgpu: x")
    assert answer == ActionResult(ActionOutcome.DONE, "was out of service already")
    assert [call[0] for call in commands.changes] == ["sinfo"]


@pytest.mark.parametrize("failing", ["sinfo", "update"])
def test_a_node_that_cannot_be_drained_is_said_so(failing: str) -> None:
    commands = RecordedCommands(**{failing: SchedulerError("slurmctld is away")})
    answer = SlurmActions(commands, None).drain("n1", "canhazgpu: x")
    assert answer == ActionResult(ActionOutcome.FAILED, "could not be drained: slurmctld is away")


JOBS = """12 1000 RUNNING
13 1001 SUSPENDED
14 1002 COMPLETING
15 1003 COMPLETED
16 1004 CONFIGURING
x
17 nobody RUNNING
"""


def test_whose_jobs_run_on_a_node() -> None:
    actions = SlurmActions(RecordedCommands(squeue=JOBS), None)
    assert actions.running_job_uids("n1") == {"12": 1000, "13": 1001, "16": 1004}
    away = SlurmActions(RecordedCommands(squeue=SchedulerError("away")), None)
    assert away.running_job_uids("n1") is None


def test_a_comment_is_bounded_and_free_of_control_characters() -> None:
    commands = RecordedCommands(squeue="12 12 RUNNING")
    requeue(commands, "canhazgpu: \x1b[31m\x00\ud800" + "x" * 1000)
    comment = commands.changes[0][3].removeprefix("comment=")
    assert len(comment) == MAX_COMMENT
    assert comment.startswith("canhazgpu: ?[31m??xxx")


@pytest.mark.parametrize("verb", ["requeue", "cancel", "notify_user", "drain"])
def test_whatever_slurm_is_told_keeps_who_and_since_when(verb: str) -> None:
    commands = RecordedCommands(squeue="12 12 RUNNING")
    actions = SlurmActions(commands, None)
    others = "GPU 0 on node n1 is quarantined: too hot; " * 20
    note = f"canhazgpu: {others}GPU 1 is in use by bob: 8GB by PID 77 (x) (since 2026-11-25 13:31)"

    if verb == "drain":
        actions.drain("n1", note)
    else:
        getattr(actions, verb)(JOB, note)

    told = [word for command in commands.changes for word in command if "canhazgpu:" in word]
    assert told
    for text in told:
        assert len(text[text.index("canhazgpu:") :]) <= MAX_COMMENT
        assert text.endswith("in use by bob ... PID 77 (x) ... (since 2026-11-25 13:31)")


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
    assert single_line(text) == line


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

    def run(self, program: str, *arguments: str, share: float = 1.0) -> str:
        if arguments[0] == "requeue":
            self._answers = {"squeue": "12 12 PENDING"}
            raise SchedulerError("Socket timed out on send/recv operation")
        return super().run(program, *arguments, share=share)


def test_a_lost_answer_is_no_refusal() -> None:
    commands = LosingCommands(squeue="12 12 RUNNING")
    answer = requeue(commands)
    assert answer.outcome is ActionOutcome.DONE and answer.text.startswith("requeued")
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
    assert (actions.has_stopped_running("12"), actions.is_finished("12")) == (over, gone)


def test_a_jobs_state_is_asked_once() -> None:
    commands = RecordedCommands(squeue="12 12 RUNNING")
    actions = SlurmActions(commands, None)
    assert [actions.is_finished("12") for _ in range(3)] == [False] * 3
    assert actions.is_finished("13")
    assert len(commands.calls) == 2


def test_a_slurm_that_does_not_answer_is_asked_once() -> None:
    commands = RecordedCommands(squeue=SchedulerError("squeue gave no answer in 3 s"))
    actions = SlurmActions(commands, None)
    assert [actions.is_finished(job_id) for job_id in ("12", "13", "12")] == [False] * 3
    assert len(commands.calls) == 1
