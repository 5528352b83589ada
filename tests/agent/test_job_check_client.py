"""The client of the task prolog, where the agent was killed and is started again."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from canhazgpu.agent import job_check_client
from canhazgpu.agent.job_check_client import NO_AGENT, RESTART_WAIT_S, main

# The client's process closes its sockets by ending.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
ANSWERS = ({"limit_s": 10, "nonce": "abc"}, {"status": 2, "output": "sent back"})


@pytest.fixture
def dead() -> Iterator[socket.socket]:
    """The socket of an agent that was killed: it is there, and nobody listens."""
    directory = Path(tempfile.mkdtemp(prefix="dead-agent-", dir="/run"))
    one = socket.socket(socket.AF_UNIX)
    one.bind(str(directory / "agent.sock"))
    yield one
    one.close()
    shutil.rmtree(directory)


def answer(listening: socket.socket) -> None:
    """Serve one request as an agent does."""
    connection, _ = listening.accept()
    with connection:
        for parameters in ANSWERS:
            while not connection.recv(4096).endswith(b"\0"):
                pass
            connection.sendall(json.dumps({"parameters": parameters}).encode() + b"\0")


def clock(monkeypatch: pytest.MonkeyPatch, sleeps: list[float], on_third: object) -> None:
    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) == 3 and callable(on_third):
            on_third()

    stands = SimpleNamespace(monotonic=lambda: sum(sleeps), sleep=sleep)
    monkeypatch.setattr(job_check_client, "time", stands)


@pytest.mark.skipif("os.geteuid() != 0", reason="asks only root")
def test_an_agent_that_was_killed_is_asked_when_it_is_back(
    dead: socket.socket, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server = threading.Thread(target=answer, args=(dead,), daemon=True)

    def back() -> None:
        dead.listen()
        server.start()

    clock(monkeypatch, sleeps := [], back)
    assert main(dead.getsockname()) == 2
    assert capfd.readouterr().out == "sent back\n" and len(sleeps) == 3
    server.join(10)


def test_one_that_does_not_come_back_is_none(
    dead: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, sleeps := [], None)
    assert main(dead.getsockname()) == NO_AGENT
    assert sum(sleeps) == pytest.approx(RESTART_WAIT_S, abs=0.5)


def test_a_node_without_an_agent_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, sleeps := [], None)
    assert (main(str(tmp_path / "agent.sock")), sleeps) == (NO_AGENT, [])
