"""A caller that must itself confirm, also where the kernel gives no pidfd of a peer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from canhazgpu.agent import peer
from canhazgpu.agent.handler.calling_process import ConnectedProcess
from canhazgpu.agent.handler.proven_conversation import ProvenConversation
from canhazgpu.agent.handler_reports import Reports
from canhazgpu.agent.peer import peer_of
from canhazgpu.agent.request import Request, RequestSocket
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import decode, encode

Client = Callable[[socket.socket], None]


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "socket"


@pytest.fixture(params=["SO_PEERPIDFD", "pidfd_open"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How the agent finds the caller's process: before Linux 6.5 by its number."""
    if request.param == "pidfd_open":
        monkeypatch.setattr(peer, "SO_PEERPIDFD", 9999)


def is_confirmed(path: Path, client: Client) -> bool:
    """Whether the request of a process that does this is confirmed."""
    reports = Reports()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        pid = os.fork()
        if pid == 0:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                client(connection)
            os._exit(0)
        accepted, _ = listening.accept()
    with accepted:
        found = peer_of(accepted)
        request = Request(
            accepted, b"", b"", RequestSocket.PEOPLE, found, {}, os.getpid(), reports.write_end
        )
        confirmed = ProvenConversation(request, interface.CHECK_JOB).confirms(1.0)
    os.waitpid(pid, 0)
    for descriptor in (reports.read_end, reports.write_end):
        os.close(descriptor)
    return confirmed


def nonce_of(connection: socket.socket) -> str:
    return str(decode(connection.recv(4096)[:-1])["parameters"]["nonce"])


def confirm(connection: socket.socket) -> None:
    message = {"method": interface.CONFIRM, "parameters": {"nonce": nonce_of(connection)}}
    connection.sendall(encode(message))
    connection.recv(1)  # until it is closed


def confirm_in_child(connection: socket.socket) -> None:
    """As whoever was given the connection does."""
    pid = os.fork()
    if pid == 0:
        confirm(connection)
        os._exit(0)
    os.waitpid(pid, 0)


def confirm_in_pieces(connection: socket.socket) -> None:
    """The first half by the process itself, the rest by another."""
    message = encode({"method": interface.CONFIRM, "parameters": {"nonce": nonce_of(connection)}})
    connection.sendall(message[:20])
    pid = os.fork()
    if pid == 0:
        connection.sendall(message[20:])
        os._exit(0)
    os.waitpid(pid, 0)
    connection.recv(1)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (confirm, True),
        (confirm_in_child, False),
        (confirm_in_pieces, False),
        (lambda connection: connection.close(), False),
    ],
    ids=["itself", "another", "partly another", "nobody"],
)
def test_only_the_process_that_connected_confirms(
    path: Path, client: Client, expected: bool
) -> None:
    assert is_confirmed(path, client) is expected


def test_what_proc_says_of_a_number_counts_only_while_its_process_lives() -> None:
    """Its number may be another's by then."""
    child = subprocess.Popen(["/bin/sleep", "600"])
    pidfd = os.pidfd_open(child.pid)
    # The number of a process that lives, and the descriptor of one that has ended.
    found = ConnectedProcess(peer.Peer(os.getpid(), 0, 0), pidfd)
    assert found.control_groups() == Path("/proc/self/cgroup").read_text()
    child.kill()
    child.wait()

    with pytest.raises(ProcessLookupError, match="has ended"):
        found.control_groups()
    with pytest.raises(ProcessLookupError):
        found.require_alive()
    os.close(pidfd)


LISTEN = """
import socket, sys
from canhazgpu.agent.peer import UnknownPeerError, peer_of
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind(sys.argv[1])
    listening.listen()
    print("listens", flush=True)
    accepted, _ = listening.accept()
    try:
        print(peer_of(accepted))
    except UnknownPeerError as exc:
        print(exc)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace takes root")
def test_a_process_of_another_pid_namespace_is_nobody(path: Path) -> None:
    """To an agent that is in a container, and is asked from outside."""
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", LISTEN, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "listens\n"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            said = agent.stdout.read()
    assert said == "its process is of another pid namespace\n"
