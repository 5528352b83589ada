"""The hooks' client: what it imports, whom it trusts, and when the hook does its work itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hosts.running_agent import RunningAgent, hook_client, is_alive
from polling import poll_until
from process_details import open_files

from canhazgpu.agent.hook_client import (
    HANDLER_DEAD,
    NEEDED_VERSION,
    NOT_SERVED,
    connect,
    received,
)
from canhazgpu.agent.socket_files import short_address
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import Inbox, decode, encode

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="hooks are root's"),
]


def client(path: Path, method: str = "JobStart", **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", hook_client(), str(path), method],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(path: Path, method: str = "JobStart", **variables: str) -> tuple[int, str, str]:
    process = client(path, method, **variables)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


Answers = Callable[[dict[str, Any]], Mapping[str, Any] | None]


@contextmanager
def listening(path: Path, answers: Answers) -> Iterator[list[dict[str, Any]]]:
    """Somebody who answers each message so, None by closing; yields the messages."""
    found: list[dict[str, Any]] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            inbox = Inbox()
            with connection:
                while chunk := connection.recv(65536):
                    inbox.add(chunk)
                    while (frame := inbox.take()) is not None:
                        found.append(decode(frame))
                        answer = answers(found[-1])
                        if answer is None:
                            return
                        connection.sendall(encode(dict(answer)))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield found
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(60)
    path.unlink()


def ready(pid: int, **other: Any) -> Mapping[str, Any]:
    parameters = {"pid": pid, "agent": os.getpid(), "interface": NEEDED_VERSION, "limit_s": 60.0}
    return interface.reply({**parameters, **other})


@contextmanager
def child() -> Iterator[int]:
    """A child of this process, in the place of a handler."""
    process = subprocess.Popen(["sleep", "600"])
    yield process.pid
    process.kill()
    process.wait()


def test_it_imports_only_what_is_built_in_and_extensions() -> None:
    program = (
        "import sys; known = set(sys.modules); sys.argv = ['', '/nonexistent/s', 'JobStart']\n"
        f"text = open({hook_client()!r}).read()\n"
        "exec(compile(text, 'client', 'exec'), {'__name__': 'client'})\n"
        "late = [sys.modules[name] for name in set(sys.modules) - known]\n"
        "print([m.__name__ for m in late if str(getattr(m, '__file__', '')).endswith('.py')])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_environment_arrives_and_the_output_comes_back(tmp_path: Path) -> None:
    with child() as handler:

        def answers(message: dict[str, Any]) -> Mapping[str, Any]:
            if message["method"] == interface.CONFIRM:
                return interface.reply({"status": 2, "errors": "é\udcff\n", "output": "out\n"})
            return ready(handler)

        with listening(tmp_path / "s", answers) as messages:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", hook_client(), str(tmp_path / "s"), "JobEnd"],
                env={b"SLURM_JOB_NAME": b'a "b" \xff\n', b"PATH": b"/x", b"HOOK_RUN": b"7"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            out, err = process.communicate(timeout=60)

    assert process.returncode == 2
    assert (out, err) == (b"out\n", "é".encode() + b"\xff\n")
    assert messages[0]["method"] == interface.JOB_END
    assert messages[0]["parameters"]["environment"] == {
        "SLURM_JOB_NAME": 'a "b" \udcff\n',
        "HOOK_RUN": "7",
    }


def nobody(path: Path) -> None:
    """No socket at all."""


def a_file(path: Path) -> None:
    path.write_text("")


def an_abandoned_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize("make", [nobody, a_file, an_abandoned_socket])
def test_without_an_agent_the_hook_does_it_itself(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "s")
    assert outcome(tmp_path / "s") == (NOT_SERVED, "", "")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"error": interface.METHOD_NOT_FOUND, "parameters": {}},
        {"error": interface.UNAVAILABLE, "parameters": {"reason": "x"}},
        {"parameters": {}},
        {"parameters": {"interface": NEEDED_VERSION - 1, "pid": 1, "agent": 0, "limit_s": 1}},
        # What an agent of another pid namespace would say
        {"parameters": {"interface": 9, "pid": os.getpid(), "agent": 1 << 22, "limit_s": 1}},
        {"parameters": {"interface": 9, "pid": 1 << 30, "agent": 1, "limit_s": 1}},
    ],
)
def test_what_does_not_prepare_it_is_no_agent(
    answer: Mapping[str, Any] | None, tmp_path: Path
) -> None:
    with listening(tmp_path / "s", lambda _: answer) as messages:
        assert outcome(tmp_path / "s") == (NOT_SERVED, "", "")
    # And it was not told to begin.
    assert [one["method"] for one in messages] == [interface.JOB_START]


def test_a_newer_interface_serves(tmp_path: Path) -> None:
    with child() as handler:

        def answers(message: dict[str, Any]) -> Mapping[str, Any]:
            if message["method"] == interface.CONFIRM:
                return interface.reply({"status": 0, "errors": "", "output": "", "news": [1]})
            return ready(handler, interface=NEEDED_VERSION + 5, news={"a": None})

        with listening(tmp_path / "s", answers):
            assert outcome(tmp_path / "s") == (0, "", "")


@pytest.mark.parametrize("closes", [True, False])
def test_a_handler_that_ends_or_hangs_is_killed_before_the_hook_does_it(
    closes: bool, tmp_path: Path
) -> None:
    with child() as handler:

        def answers(message: dict[str, Any]) -> Mapping[str, Any] | None:
            if message["method"] == interface.CONFIRM:
                return None if closes else {"parameters": {"status": "?"}}
            return ready(handler)

        with listening(tmp_path / "s", answers):
            assert outcome(tmp_path / "s")[0] == HANDLER_DEAD
        assert Path(f"/proc/{handler}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_handler_that_does_not_answer_in_its_time_is_killed(tmp_path: Path) -> None:
    with child() as handler:
        silent = threading.Event()

        def answers(message: dict[str, Any]) -> Mapping[str, Any] | None:
            if message["method"] == interface.CONFIRM:
                silent.wait(60)
                return None
            return ready(handler, limit_s=0.5)

        with listening(tmp_path / "s", answers):
            assert outcome(tmp_path / "s")[0] == HANDLER_DEAD
            silent.set()


def others_directory(directory: Path) -> None:
    directory.chmod(0o777)


def strangers_directory(directory: Path) -> None:
    os.chown(directory, 4242, 0)


def strangers_socket(directory: Path) -> None:
    os.chown(directory / "agent" / "hooks.sock", 4242, 0)


@pytest.mark.parametrize("change", [others_directory, strangers_directory, strangers_socket])
def test_a_path_that_others_can_change_is_not_trusted(
    change: Callable[[Path], None], agent: RunningAgent
) -> None:
    change(agent.state_dir)

    assert outcome(agent.hooks_socket)[0] == NOT_SERVED


def test_links_of_root_are_followed(agent: RunningAgent, tmp_path: Path) -> None:
    path = tmp_path / "relative" / "agent" / "hooks.sock"
    (tmp_path / "to").symlink_to(agent.state_dir)
    (tmp_path / "relative").symlink_to("to")
    assert outcome(path, SLURM_JOB_ID="x")[0] == 2
    os.lchown(tmp_path / "to", 4242, 0)
    assert outcome(path, SLURM_JOB_ID="x")[0] == NOT_SERVED


def test_a_listener_of_another_user_is_no_agent(tmp_path: Path) -> None:
    # Given the socket of a process that was another user's when it began to listen
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        os.seteuid(4242)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        assert outcome(path) == (NOT_SERVED, "", "")


def test_an_agent_that_is_stopped_costs_a_few_seconds(agent: RunningAgent) -> None:
    agent.process.send_signal(signal.SIGSTOP)

    assert outcome(agent.hooks_socket, SLURM_JOB_ID="x") == (NOT_SERVED, "", "")

    # And nothing of it is done later.
    agent.process.send_signal(signal.SIGCONT)
    agent.wait_until_idle()
    assert agent.served("JobStart") == 0


def test_a_killed_agent_lets_its_handlers_answer(agent: RunningAgent) -> None:
    assert outcome(agent.hooks_socket, SLURM_JOB_ID="x")[0] == 2
    agent.process.kill()
    agent.process.wait()

    assert outcome(agent.hooks_socket, SLURM_JOB_ID="x")[0] == NOT_SERVED


def test_a_client_that_is_killed_before_it_confirms_leaves_nothing(agent: RunningAgent) -> None:
    # Given an agent that answers late, and a client that does not live so long
    agent.process.send_signal(signal.SIGSTOP)
    process = client(agent.hooks_socket, SLURM_JOB_ID="x")
    poll_until(lambda: "sock" in sockets_of(process.pid))
    process.kill()
    process.communicate()
    agent.process.send_signal(signal.SIGCONT)

    agent.wait_until_idle()
    assert agent.served("JobStart") == 0
    assert not is_alive(process.pid)


def sockets_of(pid: int) -> str:
    return " ".join(open_files(pid))


def descriptors() -> set[str]:
    """The numbers of those that are open, and of the one by which this is seen."""
    return {one.name for one in Path("/proc/self/fd").iterdir()}


def test_a_long_path_leaves_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / "s"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        with short_address(path) as address:
            listener.bind(address)
        listener.listen()
        before = descriptors()
        connection, _ = connect(str(path))
        connection.close()
        assert descriptors() == before


def test_an_answer_that_has_come_is_read_after_the_time() -> None:
    """Its handler may be at another hook's request, and is not to be killed for this one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert received(ours, None, 0.0, os.getpid()) is None
        theirs.sendall(b'{"parameters":{"status":0}}\0')
        assert received(ours, None, 0.0, os.getpid()) == {"parameters": {"status": 0}}
