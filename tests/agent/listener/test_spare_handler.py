"""Handlers that wait for a request of a hook: who uses them, and what they survive."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hosts.running_agent import RunningAgent, is_alive, run_hook
from polling import poll_until

from canhazgpu.agent.handler.request_message import (
    TAKES_ANOTHER,
    encode_for_handler,
    receive_for_handler,
)
from canhazgpu.agent.listener.spare_handler import IDLE_S, MAX_WAITING, SpareHandlers
from canhazgpu.agent.peer import Peer
from canhazgpu.agent.request import Request, RequestSocket
from canhazgpu.agent.socket_files import short_address
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import decode, encode
from canhazgpu.node.daemonize import close_descriptors_except

JOB_CALL = encode({"method": interface.JOB_START, "parameters": {"environment": {}}})

ROUTINE = """
from canhazgpu.agent.handler import hook_request
hook_request._RUNS = {name: lambda *_: (0, True) for name in hook_request._RUNS}
"""
"""Hooks that do nothing, as usual."""


def asked(agent: RunningAgent, address_path: Path, call: bytes) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(60)
    with short_address(address_path) as address:
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
    poll_until(lambda: agent.spare_handler() != spare)


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


@pytest.mark.slow
def test_one_that_carried_out_a_hook_as_usual_serves_the_next(tmp_path: Path) -> None:
    with RunningAgent(tmp_path, changes=ROUTINE) as agent:
        spare = agent.spare_handler()
        for hook in ("prolog", "epilog", "health_check"):
            assert run_hook(agent, hook, {}).returncode == 0
            assert agent.spare_handler() == spare
        agent.wait_until_idle()
        assert [agent.served(one) for one in ("JobStart", "JobEnd", "Check")] == [1, 1, 1]
        # Two at once: each has its own, and both wait afterwards.
        with asked(agent, agent.hooks_socket, JOB_CALL) as first:
            assert handler_of(first) == spare
            assert run_hook(agent, "prolog", {}).returncode == 0
            other = agent.spare_handler()
            assert other != spare
        poll_until(lambda: not is_alive(spare))  # its hook confirmed nothing
        assert agent.spare_handler() == other
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(60) == 0
        poll_until(lambda: not is_alive(other))


@pytest.mark.slow
def test_one_that_is_killed_between_two_requests_is_replaced(tmp_path: Path) -> None:
    with RunningAgent(tmp_path, changes=ROUTINE) as agent:
        assert run_hook(agent, "prolog", {}).returncode == 0
        used = agent.spare_handler()
        os.kill(used, signal.SIGKILL)
        poll_until(lambda: not is_alive(used))
        assert run_hook(agent, "prolog", {}).returncode == 0
        assert f"the spare handler (PID {used})" in agent.status()["faults"][0]["text"]


def serve_all(end: socket.socket, _prepares: bool) -> NoReturn:
    """Be a handler that takes every request."""
    close_descriptors_except({end.fileno()})
    while receive_for_handler(end, 0):
        os.write(end.fileno(), TAKES_ANOTHER)
    os._exit(0)


class Pool:
    """The handlers of a listener whose clock is `now`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.handlers = SpareHandlers(serve_all, lambda: self.now)

    def given(self) -> int:
        """The pid of the handler that gets a request."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            peer = Peer(1, 0, 0)
            request = Request(theirs, b"a", b"", RequestSocket.HOOKS, peer, {}, os.getpid(), 0)
            return self.handlers.hand_over(request)

    def said_more(self) -> list[int]:
        """Those that take another request, once all that are busy have said something."""
        busy = set(self.handlers.descriptors)
        ready: set[int] = set()
        poll = select.poll()
        for one in busy:
            poll.register(one, select.POLLIN)
        while ready != busy:
            ready = {one for one, _ in poll.poll(60_000)}
        return self.handlers.said_more(ready)

    def wait_for_end(self, pids: set[int]) -> None:
        """Wait until these have been reaped, without a fault."""
        poll_until(lambda: not list(self.handlers.reap()) and not any(map(is_alive, pids)))


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    for pid in made.said_more():
        made.handlers.keep(pid)
    made.handlers.end()
    poll_until(lambda: not list(made.handlers.reap()) and not made.handlers._ending)


@pytest.mark.slow
def test_so_many_wait_and_only_one_for_long(pool: Pool) -> None:
    pids = [pool.given() for _ in range(MAX_WAITING + 1)]
    assert len(set(pids)) == MAX_WAITING + 1
    for pid in (kept := pool.said_more())[:MAX_WAITING]:
        pool.handlers.keep(pid)
    pool.handlers.forget(kept[-1])  # as the listener does where its process is being killed
    os.waitpid(kept[-1], 0)
    assert pool.handlers.wait_s == IDLE_S
    pool.now += IDLE_S
    assert pool.handlers.wait_s == 0
    pool.wait_for_end(set(kept[: MAX_WAITING - 1]))
    assert pool.handlers.wait_s is None and not pool.handlers.is_missing
    assert pool.given() == kept[MAX_WAITING - 1]


@pytest.mark.slow
def test_no_more_wait_than_may(pool: Pool) -> None:
    pids = {pool.given() for _ in range(MAX_WAITING)}
    for pid in pool.said_more():
        pool.handlers.keep(pid)
    others = {pool.given() for _ in range(MAX_WAITING)}
    assert others == pids
    fifth = pool.given()
    for pid in pool.said_more():
        if pid != fifth:
            pool.handlers.keep(pid)
    assert pool.handlers.said_more(set(pool.handlers.descriptors)) == []
    os.waitpid(fifth, 0)


def test_one_that_is_told_to_end_takes_no_more(pool: Pool) -> None:
    pid = pool.given()
    pool.handlers.end()
    assert pool.said_more() == []
    assert os.waitpid(pid, 0)[1] == 0
    assert not pool.handlers.is_missing


def test_one_that_was_stopped_is_killed(pool: Pool) -> None:
    pool.handlers.start()
    (handler,) = pool.handlers._waiting
    pid = handler.child._pid
    os.kill(pid, signal.SIGSTOP)
    faults: list[str] = []
    poll_until(lambda: faults.extend(pool.handlers.reap()) or not is_alive(pid))
    assert faults == [f"the spare handler (PID {pid}) ended with -9"]
    assert not pool.handlers.is_missing  # it rests
    pool.now += 1
    assert pool.handlers.is_missing


def test_a_request_arrives_as_it_was_sent() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client, connection = socket.socketpair()
    sent = Request(
        connection, b"a\nb", b"\0rest\n", RequestSocket.HOOKS, Peer(1, 0, 0), {"release": "1"}, 7, 0
    )
    with ours, theirs, client, connection:
        socket.send_fds(ours, [encode_for_handler(sent)], [connection.fileno()])
        taken = receive_for_handler(theirs, 5)
        assert taken is not None
        with taken.connection:
            taken.connection.sendall(b"hello")
            assert client.recv(5) == b"hello"
        same = ("frame", "rest", "arrived_at", "peer", "status", "agent")
        assert [getattr(taken, name) for name in same] == [getattr(sent, name) for name in same]
        assert taken.reports == 5
        ours.close()
        assert receive_for_handler(theirs, 5) is None
