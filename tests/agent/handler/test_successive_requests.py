"""A handler of hooks takes another request where the one before left nothing behind."""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from canhazgpu.agent.handler import request_message
from canhazgpu.agent.handler.conversation import Conversation
from canhazgpu.agent.handler.fresh_process import use_environment
from canhazgpu.agent.handler.request_message import TAKES_ANOTHER, encode_for_handler
from canhazgpu.agent.handler.serve import Runners, run_spare_handler
from canhazgpu.agent.handler_reports import Reports
from canhazgpu.agent.peer import peer_of
from canhazgpu.agent.request import Request, RequestSocket
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import decode, encode
from canhazgpu.agent.wire.interface import Call, environment_of

CONFIRM = encode({"method": interface.CONFIRM})
Work = Callable[[Conversation, Call], bool]


class ForkedHandler:
    """A handler that does this work, as the listener has it."""

    def __init__(self, work: Work) -> None:
        self.reports = Reports()
        self.end, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.settimeout(60)
        runners = Runners(work, lambda _: None, lambda _request, _call: None)
        # What other tests left open warns when it is collected, and imports what shows it.
        gc.collect()
        self.pid = os.fork()
        if self.pid == 0:
            run_spare_handler(its, self.reports.write_end, lambda: None, runners)
        its.close()

    def ask(self, environment: dict[str, str], *, confirms: bool = True) -> list[dict[str, object]]:
        """What it answers to a hook with these variables."""
        call = {"method": interface.JOB_START, "parameters": {"environment": environment}}
        ours, theirs = socket.socketpair()
        ours.settimeout(60)
        with ours, theirs:
            request = Request(
                theirs,
                encode(call)[:-1],
                CONFIRM if confirms else b"{}\0",
                RequestSocket.HOOKS,
                peer_of(theirs),
                {},
                os.getpid(),
                0,
            )
            socket.send_fds(self.end, [encode_for_handler(request)], [theirs.fileno()])
            theirs.close()
            received = b""
            while chunk := ours.recv(65536):
                received += chunk
        return [decode(one) for one in received.split(b"\0")[:-1]]

    def takes_another(self) -> bool:
        """Whether it says so; it ends otherwise."""
        return self.end.recv(10) == TAKES_ANOTHER

    def close(self) -> int:
        """End it; return its status."""
        self.end.close()
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.reports.read_end)
        os.close(self.reports.write_end)
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def handler_of() -> Iterator[Callable[[Work], ForkedHandler]]:
    made: list[ForkedHandler] = []

    def make(work: Work) -> ForkedHandler:
        made.append(ForkedHandler(work))
        return made[-1]

    yield make
    for one in made:
        assert one.close() == 0


def tell_variables(conversation: Conversation, call: Call) -> bool:
    """Answer with what the process has of this request and of those before; keep nothing."""
    before = dict(os.environ)
    use_environment(environment_of(call))
    print("said")  # noqa: T201 - a hook's output
    written = sys.stdout.getvalue()  # type: ignore[attr-defined]
    found = {"pid": os.getpid(), "before": before, "now": dict(os.environ), "written": written}
    if conversation.confirms(1.0):
        conversation.answer(found)
    return True


def test_the_next_request_finds_nothing_of_the_one_before(
    handler_of: Callable[[Work], ForkedHandler],
) -> None:
    handler = handler_of(tell_variables)
    for job in ("1", "2", "3"):
        ready, outcome = handler.ask({"SLURM_JOB_ID": job})
        found = outcome["parameters"]
        assert found == {
            "pid": handler.pid,
            "before": {},
            "now": {"SLURM_JOB_ID": job},
            "written": "said\n",
        }
        assert ready["parameters"]["pid"] == handler.pid  # type: ignore[index]
        assert handler.takes_another()


def left_module() -> object:
    sys.modules["left_behind"] = os
    return None


def left_thread() -> object:
    threading.Thread(target=threading.Event().wait, args=(60,), daemon=True).start()
    return None


LEFTOVERS: dict[str, Callable[[], object]] = {
    "descriptor": lambda: os.open("/dev/null", os.O_RDONLY),
    "thread": left_thread,
    "child": lambda: subprocess.Popen(["/bin/true"]),
    "directory": lambda: os.chdir("/tmp"),
    "umask": lambda: os.umask(0o077),
    "group": lambda: os.setgroups([1, 2, 3]),
    "user": lambda: os.setresuid(0, 0, 1),
    "signal": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "blocked signal": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]),
    "timer": lambda: signal.setitimer(signal.ITIMER_REAL, 1000),
    "limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)),
    "niceness": lambda: os.nice(1),
    "module": left_module,
    "search path": lambda: sys.path.append("/nothing"),
}
ROOT_ONLY = {"group", "user"}


@pytest.mark.parametrize("what", LEFTOVERS)
def test_one_that_leaves_something_behind_is_the_last(
    handler_of: Callable[[Work], ForkedHandler], what: str
) -> None:
    if what in ROOT_ONLY and os.geteuid() != 0:
        pytest.skip("only root can change it")
    kept: list[object] = []

    def work(conversation: Conversation, call: Call) -> bool:
        kept.append(LEFTOVERS[what]())
        return tell_variables(conversation, call)

    handler = handler_of(work)
    assert len(handler.ask({})) == 2
    assert not handler.takes_another()


def test_one_that_did_not_go_as_usual_is_the_last(
    handler_of: Callable[[Work], ForkedHandler],
) -> None:
    handler = handler_of(lambda *given: not tell_variables(*given))
    assert len(handler.ask({})) == 2
    assert not handler.takes_another()


def test_one_that_was_not_confirmed_is_the_last(
    handler_of: Callable[[Work], ForkedHandler],
) -> None:
    handler = handler_of(tell_variables)
    (ready,) = handler.ask({}, confirms=False)
    assert "parameters" in ready
    assert not handler.takes_another()


class Circle:
    """What has a descriptor, and refers to itself."""

    def __init__(self) -> None:
        self._descriptor = os.open("/dev/null", os.O_RDONLY)
        self._itself = self

    def __del__(self) -> None:
        os.close(self._descriptor)


def test_what_refers_to_itself_is_ended_with_its_request(
    handler_of: Callable[[Work], ForkedHandler],
) -> None:
    """Its descriptor would be closed at any time later, when the number is another's."""

    def work(conversation: Conversation, call: Call) -> bool:
        Circle()
        return tell_variables(conversation, call)

    handler = handler_of(work)
    handler.ask({})
    assert handler.takes_another()


def test_a_process_serves_so_many_requests(
    handler_of: Callable[[Work], ForkedHandler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_message, "MAX_REQUESTS", 2)
    handler = handler_of(tell_variables)
    handler.ask({})
    assert handler.takes_another()
    handler.ask({})
    assert not handler.takes_another()
