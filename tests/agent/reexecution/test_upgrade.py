"""When an agent becomes what is installed: decided by the time, the file, and the trial."""

from __future__ import annotations

from collections.abc import Callable

from canhazgpu.agent.reexecution import upgrade as module
from canhazgpu.agent.reexecution.installed_files import Identity
from canhazgpu.agent.reexecution.program import Program
from canhazgpu.agent.reexecution.trial_start import Outcome
from canhazgpu.agent.reexecution.upgrade import (
    EARLY_RETRY_S,
    GONE_S,
    LOOK_S,
    QUIET_WAIT_S,
    RETRY_S,
    STILL_S,
    Upgrade,
)

OWN = Program("/opt/a/python", ("python", "agent", "run"))
FIRST, SECOND, THIRD = ((1, number, 1, 1) for number in range(3))


class FakeTrial:
    """Proves what it is told to; `outcome` is None while it goes on."""

    def __init__(self) -> None:
        self.started: list[Program] = []
        self.outcome: Outcome | None = None
        self.runs = False

    @property
    def left_s(self) -> float:
        """The listener is woken by the child's end; here it waits for so long."""
        return 60.0 if self.outcome is None else 0.5

    def start(self, program: Program) -> None:
        self.started.append(program)
        self.runs = True

    def take(self) -> Outcome | None:
        if self.outcome is not None:
            self.runs = False
        return self.outcome

    def end(self) -> None:
        self.runs = False


class Agent:
    """An agent whose time, file and trial the test has."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.file: Identity = FIRST
        self.looks = 0
        self.told: list[str] = []
        self.trial = FakeTrial()
        self.upgrade = Upgrade(
            OWN,
            self.look,
            FIRST,
            self.trial,  # type: ignore[arg-type]
            self.told.append,
            lambda: self.now,
        )

    def look(self) -> Identity:
        self.looks += 1
        return self.file

    def serve(self, seconds: float, until: Callable[[], object] = lambda: False) -> None:
        """Let time pass as the listener does: it waits for as long as it is told to."""
        ends_at = self.now + seconds
        while self.now < ends_at and not until():
            self.upgrade.step()
            wait_s = self.upgrade.wait_s
            self.now = min(self.now + (60.0 if wait_s is None else max(wait_s, 0.001)), ends_at)
        self.upgrade.step()

    def proven(self) -> bool:
        """Serve until a trial was begun, and have it succeed."""
        before = len(self.trial.started)
        self.serve(LOOK_S + GONE_S + 60.0, lambda: len(self.trial.started) > before)
        if len(self.trial.started) == before:
            return False
        self.trial.outcome = Outcome()
        self.upgrade.step()
        self.trial.outcome = None
        return True

    def executed(self, *, is_quiet: bool = True) -> Program | None:
        return self.upgrade.to_execute(is_quiet=is_quiet)


def test_an_agent_whose_file_is_the_same_looks_rarely_and_does_nothing() -> None:
    agent = Agent()
    before = agent.looks
    agent.serve(100 * LOOK_S)
    assert agent.looks - before <= 101
    assert agent.trial.started == []
    assert agent.executed() is None
    assert agent.told == []


def test_what_was_installed_while_the_agent_started_is_another_release() -> None:
    agent = Agent()
    agent.file = SECOND
    assert agent.upgrade.wait_s == LOOK_S
    assert agent.proven()


def test_another_file_is_proven_once_it_was_left_alone() -> None:
    agent = Agent()
    agent.file = SECOND
    agent.serve(LOOK_S + STILL_S - 0.5)
    # It is written again.
    agent.file = THIRD
    agent.serve(STILL_S - 1.5)
    assert agent.trial.started == []
    assert agent.proven()
    assert agent.trial.started == [OWN]
    assert agent.executed() == OWN
    assert agent.executed() is None


def test_requests_under_way_are_waited_for_so_long() -> None:
    agent = Agent()
    agent.file = SECOND
    assert agent.proven()
    assert agent.executed(is_quiet=False) is None
    assert agent.upgrade.wait_s == QUIET_WAIT_S
    agent.now += QUIET_WAIT_S
    assert agent.executed(is_quiet=False) == OWN


def test_what_changes_while_it_is_proven_is_proven_again() -> None:
    agent = Agent()
    agent.file = SECOND
    agent.serve(600, lambda: agent.trial.started)
    agent.file = THIRD
    agent.trial.outcome = Outcome()
    agent.upgrade.step()
    agent.trial.outcome = None
    assert agent.executed() is None
    assert agent.proven()
    assert agent.executed() == OWN


def test_what_changes_after_the_proof_is_not_executed() -> None:
    agent = Agent()
    agent.file = SECOND
    assert agent.proven()
    agent.file = THIRD
    assert agent.executed() is None
    assert agent.proven()
    assert agent.executed() == OWN


def test_what_does_not_start_is_tried_again_after_a_while() -> None:
    agent = Agent()
    agent.file = SECOND
    agent.trial.outcome = Outcome("no module")
    agent.serve(600, lambda: agent.told)
    assert agent.told == ["/opt/a/python: no module"]
    assert agent.executed() is None
    tries = len(agent.trial.started)
    agent.serve(RETRY_S - LOOK_S)
    assert len(agent.trial.started) == tries
    agent.serve(2 * LOOK_S)
    assert len(agent.trial.started) == tries + 1


def test_an_installation_that_is_not_complete_yet_is_tried_again_soon_and_not_told() -> None:
    agent = Agent()
    agent.file = SECOND
    agent.trial.outcome = Outcome("half of it")
    agent.serve(LOOK_S + STILL_S + 3 * EARLY_RETRY_S)
    assert len(agent.trial.started) > 1
    agent.trial.outcome = Outcome()
    agent.serve(2 * EARLY_RETRY_S)
    agent.trial.outcome = None
    assert agent.executed() == OWN
    assert agent.told == [""]


def test_going_back_to_what_runs_ends_the_fault() -> None:
    agent = Agent()
    agent.file = SECOND
    agent.trial.outcome = Outcome("no module")
    agent.serve(600, lambda: agent.told)
    tries = len(agent.trial.started)
    agent.file = FIRST
    agent.serve(2 * LOOK_S)
    assert agent.told[-1] == ""
    assert len(agent.trial.started) == tries


def test_a_file_that_is_missing_for_a_moment_is_no_fault() -> None:
    agent = Agent()
    agent.file = None
    agent.serve(LOOK_S + GONE_S - 2)
    assert agent.trial.started == []
    agent.file = SECOND
    assert agent.proven()
    assert agent.told == [""]


def test_whoever_asks_gets_a_proof_at_once_also_of_another_environment() -> None:
    agent = Agent()
    agent.upgrade.ask("")
    assert agent.upgrade.wait_s == 0
    assert agent.proven()
    assert agent.executed() == OWN
    agent.upgrade.ask("/opt/b/python")
    assert agent.proven()
    other = agent.executed()
    assert other is not None
    assert other.arguments[:4] == ("/opt/b/python", "-I", "-m", "canhazgpu.cli.main")


def test_who_asks_while_something_is_proven_is_not_forgotten() -> None:
    agent = Agent()
    agent.upgrade.ask("")
    agent.upgrade.step()
    agent.upgrade.ask("/opt/b/python")
    agent.trial.outcome = Outcome()
    agent.upgrade.step()
    agent.trial.outcome = None
    assert agent.executed() is None
    assert agent.proven() or agent.trial.started
    assert [one.python for one in agent.trial.started] == [OWN.python, "/opt/b/python"]


def test_what_cannot_be_executed_is_told() -> None:
    agent = Agent()
    agent.upgrade.ask("")
    assert agent.proven()
    agent.executed()
    agent.upgrade.note_failure("no memory")
    assert agent.told[-1] == "no memory"


def test_the_constants_leave_hooks_their_time() -> None:
    from canhazgpu.agent.listener.process import CLOSED_S

    assert CLOSED_S < 6.0
    assert module.SETTLING_LOOK_S < STILL_S
