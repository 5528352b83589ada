"""Read the cluster through the agent of this host, for a user who has no login of the store.

The agent reads the store in a process of this request, and scans nothing. A large cluster comes
some nodes at a time, so that neither end has all of it as text.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from canhazgpu.agent.client_connection import AgentBusy
from canhazgpu.agent.command_client.exchange import AgentEnded, ask
from canhazgpu.agent.hook_client import NotServed
from canhazgpu.cli.through_agent.page_answers import PAGE
from canhazgpu.errors import AgentError, CanhazgpuError
from canhazgpu.service.answer_json import decoded
from canhazgpu.service.history import ExplainAnswer, ExplainRequest, ReportAnswer, ReportRequest
from canhazgpu.service.nodes import CountersAnswer
from canhazgpu.service.status import StatusAnswer, StatusRequest

T = TypeVar("T")
BEGIN_WAIT_S = 10.0
"""Longest time for the agent to begin; one that is stopped never does."""
SILENCE_S = 120.0
"""Longest time between two parts of an answer: the history of a large cluster takes long."""
MAX_QUESTIONS = 2
"""At once, beside the reading of the cluster: the user's own commands have the other places."""
TURN_WAIT_S = 120.0
MISTRUST_S = 30.0
"""After the agent gave no answer, pages do not wait for it anew for so long, or until it answers
the reading of the cluster."""
TRIES = 4
"""An agent that became another release may have ended the first one's connection. And the place of
a question counts as taken until its process has ended, some milliseconds after its answer."""
PAUSE_S = 0.2

Ask = Callable[[Sequence[str]], Iterable[Mapping[str, Any]]]
"""Has the words carried out; yields what comes of it, the exit status last."""


@dataclass
class AgentSource:
    """What pages ask of `NodeService`, answered by the agent at this socket.

    Raises what the service raises, and `AgentError` where the agent gives no answer.
    """

    path: str
    ask: Ask | None = None
    clock: Callable[[], float] = time.monotonic
    _turns: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MAX_QUESTIONS))
    _mistrusted_until: float = 0.0
    _fault: str = ""

    def status(self, request: StatusRequest) -> StatusAnswer:
        """See `NodeService.status`; the whole cluster, or these nodes, as they were published."""
        words = ["status", *(f"--node={one}" for one in request.nodes)]
        if request.brief_above is not None:
            words.append(f"--brief-above={request.brief_above}")
        if request.nodes:
            return _joined(self._in_turn(words, StatusAnswer))
        # That there is an answer again, this one finds out for all.
        return _joined(self._answers(words, StatusAnswer))

    def explain(self, request: ExplainRequest) -> ExplainAnswer:
        """See `NodeService.explain`."""
        words = ["explain", f"--since={request.since_s}", f"--cluster={request.cluster}"]
        (answer,) = self._in_turn([*words, "--", request.subject], ExplainAnswer)
        return answer

    def report(self, request: ReportRequest) -> ReportAnswer:
        """See `NodeService.report`."""
        (answer,) = self._in_turn(["report", f"--days={request.days}"], ReportAnswer)
        return answer

    def counters(self) -> Iterator[CountersAnswer]:
        """See `NodeService.counters`."""
        yield from self._in_turn(["counters"], CountersAnswer)

    def _in_turn(self, words: Sequence[str], kind: type[T]) -> list[T]:
        self._refuse_mistrusted()
        if not self._turns.acquire(timeout=TURN_WAIT_S):
            raise AgentError("too many questions at once: try again in a moment", next_step="")
        try:
            self._refuse_mistrusted()
            return self._answers(words, kind)
        finally:
            self._turns.release()

    def _refuse_mistrusted(self) -> None:
        if self.clock() < self._mistrusted_until:
            raise AgentError(self._fault, next_step="")

    def _answers(self, words: Sequence[str], kind: type[T]) -> list[T]:
        """Return the answers, one at least."""
        for left in reversed(range(TRIES)):
            try:
                return self._asked(words, kind)
            except (AgentEnded, AgentBusy) as exc:
                if not left:
                    raise self._no_answer(reason_of(exc)) from exc
                time.sleep(PAUSE_S)
        raise AssertionError("the last try returns or raises")

    def _asked(self, words: Sequence[str], kind: type[T]) -> list[T]:
        try:
            found = self._read(words, kind)
        except (NotServed, OSError, ValueError) as exc:
            fault = self._no_answer(reason_of(exc))
            if isinstance(exc, TimeoutError):
                self._fault, self._mistrusted_until = str(fault), self.clock() + MISTRUST_S
            raise fault from exc
        self._mistrusted_until = 0.0
        if not found:
            raise self._no_answer("it said nothing")
        return found

    def _read(self, words: Sequence[str], kind: type[T]) -> list[T]:
        found: list[T] = []
        for line in lines_of((self.ask or self._ask_agent)([PAGE, *words])):
            value = decoded(line)
            if isinstance(value, CanhazgpuError):
                raise value
            if not isinstance(value, kind):
                raise ValueError(f"no {kind.__name__}")
            found.append(value)
        return found

    def _ask_agent(self, words: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        return ask(self.path, list(words), BEGIN_WAIT_S, SILENCE_S)

    def _no_answer(self, why: str) -> AgentError:
        return AgentError(f"the agent at {self.path} gives no answer: {why}", next_step="")


def reason_of(error: Exception) -> str:
    """Say why there was no answer."""
    if isinstance(error, AgentEnded):
        return "it ended before it had answered"
    if isinstance(error, AgentBusy):
        return "it serves as many requests of this page's user, or of all, as it takes"
    if isinstance(error, NotServed):
        return "no agent of root's is there"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"it is of a release that this page does not understand: {error}"


def lines_of(outcome: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines that a command writes; raises `ValueError` where it ends by an error."""
    parts: list[str] = []
    errors = ""
    for one in outcome:
        errors += str(one.get("errors", ""))
        first, *others = str(one.get("output", "")).split("\n")
        parts.append(first)
        for other in others:
            yield "".join(parts)
            parts = [other]
        if status := int(one.get("status", 0)):
            last = (errors.strip().splitlines() or [f"exit status {status}"])[-1]
            raise ValueError(last)


def _joined(answers: Sequence[StatusAnswer]) -> StatusAnswer:
    """Return the answers as one; the nodes are sorted over all of them."""
    first = answers[0]
    if len(answers) == 1:
        return first
    return replace(first, nodes=tuple([node for one in answers for node in one.nodes]))
