"""What the client does when the agent ends: what could be done twice is not asked twice."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from hosts.agent_node import PROGRAM

from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import Inbox, decode, encode

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root is asked"),
]


class DyingAgent:
    """Ends each connection but the last one, at a step of the conversation."""

    def __init__(self, path: Path, ends_before: str) -> None:
        self.path = path
        self.asked: list[str] = []
        self._ends_before = ends_before
        self.removes_itself = False
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        inbox = Inbox()
        self._take(connection, inbox)
        if self._ends_before == "named":
            connection.sendall(encode({"error": interface.NOT_PERMITTED, "parameters": {}}))
            return
        first = len(self.asked) == 1
        if first and self._ends_before == "ready":
            if self.removes_itself:
                self.path.unlink()
            return
        ready = {"pid": 1, "agent": 1, "interface": 3, "limit_s": 5.0, "nonce": "a1"}
        connection.sendall(encode({"parameters": ready}))
        self._take(connection, inbox)
        if len(self.asked) == 2 and self._ends_before == "outcome":
            return
        connection.sendall(encode({"parameters": {"output": "done\n", "errors": "", "status": 0}}))

    def _take(self, connection: socket.socket, inbox: Inbox) -> None:
        while (frame := inbox.take()) is None:
            inbox.add(connection.recv(65536))
        self.asked.append(str(decode(frame)["method"]).rpartition(".")[2])

    def end(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


def run(agent: DyingAgent, *words: str) -> subprocess.CompletedProcess[str]:
    env = {"CANHAZGPU_AGENT_SOCKET": str(agent.path)}
    try:
        return subprocess.run(
            [PROGRAM, *words], env=env, capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        agent.end()


@pytest.mark.parametrize("words", [("extend", "--duration", "1h"), ("release",), ("status",)])
def test_what_may_have_been_done_is_not_asked_again(tmp_path: Path, words: tuple[str, ...]) -> None:
    agent = DyingAgent(tmp_path / "agent.sock", "outcome")
    ran = run(agent, *words)
    assert agent.asked == ["Command", "Proceed"]
    assert (ran.returncode, ran.stdout) == (8, "")
    assert "ended before it had answered" in ran.stderr


@pytest.mark.parametrize("words", [("reserve", "--gpus", "1"), ("run", "--gpus", "1", "true")])
def test_a_request_for_gpus_is_asked_again(tmp_path: Path, words: tuple[str, ...]) -> None:
    agent = DyingAgent(tmp_path / "agent.sock", "outcome")
    ran = run(agent, *words)
    assert agent.asked == ["Command", "Proceed"] * 2
    assert (ran.returncode, ran.stdout) == (0, "done\n")
    assert "trying again" in ran.stderr


def test_who_has_found_an_agent_waits_for_the_next(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    agent = DyingAgent(path, "ready")
    agent.removes_itself = True
    with subprocess.Popen(
        [PROGRAM, "reserve", "--gpus", "1"],
        env={"CANHAZGPU_AGENT_SOCKET": str(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as asking:
        assert asking.stderr is not None
        assert "trying again" in asking.stderr.readline()
        following = DyingAgent(path, "nothing")
        output, errors = asking.communicate(timeout=60)
        following.end()
    agent.end()
    assert (asking.returncode, output, errors) == (0, "done\n", "")


def test_who_is_refused_does_not_ask_again(tmp_path: Path) -> None:
    agent = DyingAgent(tmp_path / "agent.sock", "named")
    ran = run(agent, "reserve", "--gpus", "1")
    assert agent.asked == ["Command"]
    assert (ran.returncode, ran.stdout) == (8, "")
    assert "refuses this request: NotPermitted" in ran.stderr


def test_a_command_line_that_is_too_long_is_not_sent(tmp_path: Path) -> None:
    agent = DyingAgent(tmp_path / "agent.sock", "nothing")
    ran = run(agent, "run", "--gpus", "1", "--", "true", *["x" * 1000] * 150)
    assert agent.asked == []
    assert (ran.returncode, ran.stdout) == (8, "")
    assert "put the command into a script" in ran.stderr


def test_a_run_may_have_many_files(tmp_path: Path) -> None:
    agent = DyingAgent(tmp_path / "agent.sock", "nothing")
    ran = run(agent, "run", "--gpus", "1", "--", "true", *map(str, range(5000)))
    assert (ran.returncode, ran.stdout) == (0, "done\n")


def test_what_was_not_begun_is_asked_again(tmp_path: Path) -> None:
    agent = DyingAgent(tmp_path / "agent.sock", "ready")
    ran = run(agent, "extend", "--duration", "1h")
    assert agent.asked == ["Command", "Command", "Proceed"]
    assert (ran.returncode, ran.stdout) == (0, "done\n")
