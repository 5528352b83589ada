"""The handler that is forked before its request comes: who uses it, and what it survives."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from hosts.running_agent import RunningAgent, is_alive
from polling import poll_until

from canhazgpu.agent.handler.handed_request import encode_handed, receive_handed
from canhazgpu.agent.peer import Peer
from canhazgpu.agent.request import Door, Request
from canhazgpu.agent.socket_files import short_address
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import decode, encode

JOB_CALL = encode({"method": interface.JOB_START, "parameters": {"environment": {}}})


def asked(agent: RunningAgent, door: Path, call: bytes) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(60)
    with short_address(door) as address:
        made.connect(address)
    made.sendall(call)
    return made


def handler_of(connection: socket.socket) -> int:
    """The pid that a hook's request is answered with."""
    found = b""
    while not found.endswith(b"\0"):
        found += connection.recv(65536)
    parameters = decode(found[:-1])["parameters"]
    assert isinstance(parameters, dict)
    return int(parameters["pid"])


@pytest.mark.slow
def test_a_hook_gets_it_and_the_next_one_another(agent: RunningAgent) -> None:
    spare = agent.spare_handler()
    with asked(agent, agent.hooks_socket, JOB_CALL) as first:
        assert handler_of(first) == spare
        with asked(agent, agent.hooks_socket, JOB_CALL) as second:
            assert handler_of(second) != spare
    assert agent.spare_handler() != spare


@pytest.mark.slow
def test_people_do_not_take_it(agent: RunningAgent) -> None:
    spare = agent.spare_handler()
    agent.status()
    assert agent.spare_handler() == spare


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_ends_or_is_stopped_is_replaced(agent: RunningAgent, number: int) -> None:
    spare = agent.spare_handler()
    os.kill(spare, number)
    poll_until(lambda: not is_alive(spare))
    with asked(agent, agent.hooks_socket, JOB_CALL) as connection:
        assert handler_of(connection) != spare
    assert f"the spare handler (PID {spare})" in agent.status()["faults"][0]["text"]


@pytest.mark.slow
def test_a_long_request_gets_a_handler_of_its_own(agent: RunningAgent) -> None:
    spare = agent.spare_handler()
    environ = {f"SLURM_{number}": "x" * 60_000 for number in range(3)}
    call = encode({"method": interface.JOB_START, "parameters": {"environment": environ}})
    with asked(agent, agent.hooks_socket, call) as connection:
        assert handler_of(connection) != spare


@pytest.mark.slow
def test_it_ends_with_the_listener(agent: RunningAgent) -> None:
    spare = agent.spare_handler()
    agent.process.kill()
    agent.process.wait()
    poll_until(lambda: not is_alive(spare))


def test_a_request_arrives_as_it_was_sent() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client, connection = socket.socketpair()
    sent = Request(
        connection, b"a\nb", b"\0rest\n", Door.HOOKS, Peer(1, 0, 0), {"release": "1"}, 7, 0
    )
    with ours, theirs, client, connection:
        socket.send_fds(ours, [encode_handed(sent)], [connection.fileno()])
        taken = receive_handed(theirs, 5)
        assert taken is not None
        with taken.connection:
            taken.connection.sendall(b"hello")
            assert client.recv(5) == b"hello"
        same = ("frame", "rest", "door", "peer", "status", "agent")
        assert [getattr(taken, name) for name in same] == [getattr(sent, name) for name in same]
        assert taken.reports == 5
        ours.close()
        assert receive_handed(theirs, 5) is None
