"""What a page makes of the words of an agent: one that is slow, busy, older, or gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from canhazgpu.agent.client_connection import AgentBusy
from canhazgpu.agent.command_client.exchange import AgentEnded, AgentRefuses
from canhazgpu.agent.hook_client import NotServed
from canhazgpu.cli.web.sources.agent_source import MAX_QUESTIONS, MISTRUST_S, AgentSource
from canhazgpu.errors import AgentError, StoreError, UnknownNameError
from canhazgpu.service.answer_json import encoded
from canhazgpu.service.history import ExplainAnswer, ExplainRequest, JobOnNode, ReportRequest
from canhazgpu.service.status import StatusAnswer, StatusRequest
from canhazgpu.status.node_status import NodeStatus

WHOLE = StatusRequest(brief_above=64)
JOB = ExplainRequest("--x", 60.0, (), "-c")


def node(name: str) -> NodeStatus:
    return NodeStatus(name, 2.0, 1.0, False, None, ())


@dataclass
class Agent:
    """Writes these texts, in the parts in which they are given, then raises or ends."""

    texts: Sequence[str] = ()
    error: Exception | None = None
    status: int = 0
    errors: str = ""
    now: float = 100.0
    asked: list[list[str]] = field(default_factory=list)

    def ask(self, words: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        self.asked.append(list(words))
        yield {}
        for text in self.texts:
            yield {"output": text, "errors": ""}
        if self.error is not None:
            raise self.error
        yield {"output": "", "errors": self.errors, "status": self.status}

    def source(self) -> AgentSource:
        return AgentSource("/run/a.sock", self.ask, clock=lambda: self.now)


def test_nodes_that_come_in_parts_are_one_answer() -> None:
    first, second = (encoded(StatusAnswer((node(one),))) for one in ("n1", "n2"))
    text = f"{first}\n{second}\n"
    agent = Agent([text[place : place + 7] for place in range(0, len(text), 7)])
    found = agent.source().status(WHOLE)
    assert found.nodes == (node("n1"), node("n2"))
    assert agent.asked == [["page", "status", "--brief-above=64"]]


def test_a_node_and_a_job_are_asked_by_any_name() -> None:
    agent = Agent([encoded(StatusAnswer((node("--x"),))), "\n"])
    agent.source().status(StatusRequest(("--x",)))
    assert agent.asked == [["page", "status", "--node=--x"]]
    agent = Agent([encoded(ExplainAnswer("41", JobOnNode("n1", None, None))), "\n"])
    assert agent.source().explain(JOB).job_id == "41"
    assert agent.asked == [["page", "explain", "--since=60.0", "--cluster=-c", "--", "--x"]]


@pytest.mark.parametrize("error", [StoreError("away"), UnknownNameError("no node", kind="node")])
def test_what_the_agent_could_not_do_is_the_same_error_here(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        Agent([encoded(error), "\n"]).source().status(WHOLE)


@pytest.mark.parametrize(
    ("agent", "why"),
    [
        (Agent(error=AgentBusy()), "as many requests"),
        (Agent(error=NotServed()), "no agent of root's is there"),
        (Agent(error=AgentRefuses(1, "it refuses")), "it refuses"),
        (Agent(error=ConnectionRefusedError(111, "Connection refused")), "Connection refused"),
        (Agent(error=TimeoutError()), "does not answer in time"),
        (Agent(error=AgentEnded()), "ended before it had answered"),
        (Agent(), "said nothing"),
        (Agent(['{"":"Later"}\n']), "a release that this page does not understand"),
        (Agent([encoded(ExplainAnswer("1", JobOnNode("n", None, None))) + "\n"]), "StatusAnswer"),
        (Agent(status=2, errors="Usage\nError: No such command 'page'.\n"), "No such command"),
    ],
)
def test_an_agent_that_gives_no_answer_is_told_with_its_reason(agent: Agent, why: str) -> None:
    with pytest.raises(AgentError, match=why) as found:
        agent.source().status(WHOLE)
    assert "/run/a.sock" in str(found.value)


@pytest.mark.parametrize("error", [AgentEnded, AgentBusy])
def test_one_that_ended_or_is_busy_is_asked_again(error: type[Exception]) -> None:
    agent = Agent(error=error())
    source = agent.source()

    def ask(words: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        yield from agent.ask(words)

    def ends_once(words: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        source.ask = ask
        agent.texts = [encoded(StatusAnswer((node("n1"),))) + "\n"]
        agent.error = None
        raise error
        yield {}

    source.ask = ends_once
    assert source.status(WHOLE).nodes == (node("n1"),)


def test_one_that_is_stopped_is_waited_for_by_one_question_and_not_by_all() -> None:
    agent = Agent(error=TimeoutError())
    source = agent.source()
    for _ in range(3):
        with pytest.raises(AgentError, match="in time"):
            source.report(ReportRequest(7))
    assert len(agent.asked) == 1
    # The reading of the cluster finds out that it answers again.
    agent.error = None
    agent.texts = [encoded(StatusAnswer((node("n1"),))) + "\n"]
    source.status(WHOLE)
    source.status(StatusRequest(("n1",)))
    assert len(agent.asked) == 3


def test_without_anybody_who_finds_out_it_is_tried_again_after_a_while() -> None:
    agent = Agent(error=TimeoutError())
    source = agent.source()
    for _ in range(2):
        with pytest.raises(AgentError):
            source.report(ReportRequest(7))
        agent.now += MISTRUST_S
    assert len(agent.asked) == 2


def test_a_pages_questions_leave_places_for_its_users_own_commands() -> None:
    inside, most, lock, goes_on = [], [0], threading.Lock(), threading.Event()

    def ask(words: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        with lock:
            inside.append(1)
            most[0] = max(most[0], len(inside))
            if len(inside) == MAX_QUESTIONS:
                goes_on.set()
        assert goes_on.wait(60)
        yield {"output": encoded(StatusAnswer((node("n1"),))) + "\n", "status": 0}
        with lock:
            inside.pop()

    source = AgentSource("/run/a.sock", ask)
    threads = [
        threading.Thread(target=source.status, args=(StatusRequest(("n1",)),)) for _ in range(9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most[0] == MAX_QUESTIONS
