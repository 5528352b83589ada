"""The agent as a process: who may ask, and what it survives."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hosts.running_agent import RunningAgent, answered, is_alive, run_hook
from polling import poll_until

from canhazgpu.agent.client import call
from canhazgpu.agent.socket_files import SCANNER_SOCKET, short_address
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import MAX_MESSAGE_BYTES, encode
from canhazgpu.cli.version import VERSION
from canhazgpu.errors import AgentError

pytestmark = pytest.mark.slow
STRANGER = 4242
OPENED: list[socket.socket] = []


@pytest.fixture(autouse=True)
def closed_in_the_end() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def connected(path: Path, sent: bytes = b"") -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    OPENED.append(made)
    made.settimeout(60)
    with short_address(path) as address:
        made.connect(address)
    # One that is refused may be closed already; the answer is there all the same.
    with contextlib.suppress(BrokenPipeError):
        made.sendall(sent)
    return made


def as_stranger(work: Callable[[], str]) -> str:
    """What this returns in a process of another user."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            os.write(write, work().encode())
        except BaseException as exc:
            os.write(write, repr(exc).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read, "rb") as stream:
        return stream.read().decode()


STATUS_CALL = encode({"method": interface.STATUS})
JOB_CALL = encode({"method": interface.JOB_START, "parameters": {"environment": {}}})


def test_status_is_for_everybody(agent: RunningAgent) -> None:
    found = agent.status()
    assert (found["release"], found["interface"]) == (VERSION, interface.VERSION)
    assert (found["pid"], found["faults"], found["children"]) == (agent.process.pid, [], 0)
    for path in (agent.state_dir, agent.state_dir.parent, agent.state_dir.parent.parent):
        path.chmod(0o755)

    told = as_stranger(lambda: json.dumps(answered(connected(agent.people_socket, STATUS_CALL))))

    assert '"release"' in told or "PermissionError" in told
    assert agent.served("Status") >= 1


def test_the_commands_show_it(agent: RunningAgent) -> None:
    def shown(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-m", "canhazgpu.cli.main", "agent", *arguments],
            env=agent.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    text, as_json = shown("status"), shown("status", "--json")

    assert f"release {VERSION}" in text.stdout and "no faults" in text.stdout
    assert json.loads(as_json.stdout)["served"]["Status"] >= 1
    second = shown("run")
    assert second.returncode == 6
    assert "another agent runs" in second.stderr
    agent.end()
    gone = shown("status")
    assert gone.returncode == 8
    assert "no agent runs on this node" in gone.stderr


def test_hooks_are_root_alone(agent: RunningAgent) -> None:
    assert agent.hooks_socket.stat().st_mode & 0o777 == 0o600
    assert agent.people_socket.stat().st_mode & 0o777 == 0o666
    # Even where the file's mode let them in.
    agent.hooks_socket.chmod(0o666)
    assert_error = interface.NOT_PERMITTED
    people = answered(connected(agent.people_socket, JOB_CALL))
    assert people["error"] == assert_error

    directory = os.open(agent.hooks_socket.parent, os.O_PATH)
    told = as_stranger(
        lambda: json.dumps(answered(connected(Path(f"/proc/self/fd/{directory}/hooks.sock"))))
    )
    os.close(directory)

    assert assert_error in told
    assert agent.status()["refused"] == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n\0",
        b"\0" * 100,
        b"[1]\0",
        b'{"method": 5}\0',
        b"[" * 100_000 + b"\0",
        b"x" * (MAX_MESSAGE_BYTES + 10),
        b'{"method"',
    ],
)
@pytest.mark.parametrize("socket_name", ["hooks_socket", "people_socket"])
def test_garbage_harms_nobody(agent: RunningAgent, garbage: bytes, socket_name: str) -> None:
    connection = connected(getattr(agent, socket_name))
    try:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        assert answered(connection) == {}
    except ConnectionError:
        pass  # it was cut off
    connection.close()

    assert agent.status()["faults"] == []
    agent.wait_until_idle()


def test_a_method_that_there_is_not(agent: RunningAgent) -> None:
    with pytest.raises(AgentError, match="another release"):
        call(agent.state_dir, f"{interface.INTERFACE}.Nonsense")
    confirm = answered(connected(agent.hooks_socket, encode({"method": interface.CONFIRM})))
    assert confirm["error"] == interface.OUT_OF_TURN


def test_the_interface_is_described(agent: RunningAgent) -> None:
    info = call(agent.state_dir, interface.GET_INFO)
    described = call(
        agent.state_dir,
        interface.GET_INTERFACE_DESCRIPTION,
        {"interface": interface.INTERFACE},
    )

    assert interface.INTERFACE in info["interfaces"]
    for method in (*interface.HOOK_METHODS, interface.CONFIRM, interface.STATUS):
        assert f"method {method.rpartition('.')[2]}(" in described["description"]


def test_one_user_cannot_take_all_slots(agent: RunningAgent) -> None:
    # Given a thousand connections that send nothing
    held = [connected(agent.people_socket) for _ in range(3)]
    poll_until(lambda: connected_refused(agent))
    for _ in range(1000):
        # Where the queue is full, one is refused at once.
        with contextlib.suppress(BlockingIOError):
            connected(agent.people_socket).close()

    # Then hooks are served
    done = run_hook(agent, "prolog", {"SLURM_JOB_ID": "x"})
    assert done.returncode == 2
    # And the slow ones are cut off, and others served
    for one in held:
        assert answered(one) == {}
    poll_until(lambda: not connected_refused(agent))


def connected_refused(agent: RunningAgent) -> bool:
    return answered(connected(agent.people_socket, STATUS_CALL)).get("error") == interface.BUSY


def test_a_handler_that_is_killed_is_one_fault(agent: RunningAgent) -> None:
    connection = connected(
        agent.hooks_socket,
        encode({"method": interface.JOB_START, "parameters": {"environment": {}}}),
    )
    ready = answered(connection)["parameters"]
    assert isinstance(ready, dict)
    assert ready["agent"] == agent.process.pid
    assert ready["pid"] in agent.children()

    os.kill(ready["pid"], signal.SIGKILL)

    assert answered(connection) == {}
    poll_until(lambda: agent.status()["faults"])
    assert "JobStart" in agent.status()["faults"][0]["text"]
    assert "SIGKILL" in agent.status()["faults"][0]["text"]


def test_a_client_that_gives_up_before_it_confirms_has_nothing_done(agent: RunningAgent) -> None:
    connection = connected(agent.hooks_socket, JOB_CALL)
    answered(connection)
    connection.close()

    agent.wait_until_idle()

    assert agent.served("JobStart") == 0
    # Nor do the bytes of one that has ended, all at once, before the agent sees them.
    agent.process.send_signal(signal.SIGSTOP)
    pid = os.fork()
    if pid == 0:
        connected(agent.hooks_socket, JOB_CALL + encode({"method": interface.CONFIRM}))
        os._exit(0)
    os.waitpid(pid, 0)
    agent.process.send_signal(signal.SIGCONT)
    agent.wait_until_idle()
    assert agent.served("JobStart") == 0


def test_without_descriptors_it_waits_for_some(agent: RunningAgent) -> None:
    agent.status()
    poll_until(lambda: not agent.children())
    agent.spare_handler()
    pid = agent.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}  # noqa: PTH208
    lowest_free = min({*range(len(used) + 1)} - used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    connection = connected(agent.people_socket, STATUS_CALL)
    began = time_of_cpu(pid)
    connection.settimeout(1.0)
    with pytest.raises(TimeoutError):
        answered(connection)
    # It does not spin.
    assert time_of_cpu(pid) - began < 0.5

    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

    connection.settimeout(60)
    assert "parameters" in answered(connection)
    assert "cannot accept" in agent.status()["faults"][0]["text"]


def time_of_cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_sighup_changes_nothing(agent: RunningAgent) -> None:
    agent.process.send_signal(signal.SIGHUP)

    assert agent.status()["pid"] == agent.process.pid


def test_sigterm_ends_it_when_its_requests_have_ended(agent: RunningAgent) -> None:
    connection = connected(agent.hooks_socket, JOB_CALL)
    assert "parameters" in answered(connection)

    agent.process.send_signal(signal.SIGTERM)

    # Nobody is let in any more, and what is under way goes on.
    poll_until(lambda: not agent.hooks_socket.exists() and not agent.people_socket.exists())
    assert agent.process.poll() is None
    connection.sendall(encode({"method": interface.CONFIRM}))
    assert "parameters" in answered(connection)
    assert agent.process.wait(60) == 0


def test_a_second_sigterm_ends_its_requests(agent: RunningAgent) -> None:
    ready = answered(connected(agent.hooks_socket, JOB_CALL))["parameters"]
    assert isinstance(ready, dict)
    # Stopped, so that it does not end by itself.
    os.kill(ready["pid"], signal.SIGSTOP)

    agent.process.send_signal(signal.SIGTERM)
    poll_until(lambda: not agent.hooks_socket.exists())
    assert agent.process.poll() is None
    agent.process.send_signal(signal.SIGTERM)

    assert agent.process.wait(60) == 0
    poll_until(lambda: not is_alive(ready["pid"]))


def test_killed_it_leaves_nothing_that_keeps_the_next_from_starting(agent: RunningAgent) -> None:
    agent.process.kill()
    agent.process.wait()

    with RunningAgent(agent.state_dir.parent) as second:
        assert second.status()["pid"] == second.process.pid


def test_a_scanner_that_was_stopped_is_replaced(agent: RunningAgent) -> None:
    scanner_socket = agent.people_socket.with_name(SCANNER_SOCKET)
    # One that is being forked would be taken for the scanner.
    agent.spare_handler()
    connected(scanner_socket)
    poll_until(agent.children)
    (stopped,) = agent.children()

    os.kill(stopped, signal.SIGSTOP)

    poll_until(lambda: not is_alive(stopped))
    connected(scanner_socket)
    poll_until(agent.children)
    assert agent.children() != [stopped]
    assert f"the scanner (PID {stopped})" in agent.status()["faults"][0]["text"]
