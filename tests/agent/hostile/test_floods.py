"""Users who open all the connections that they can keep no hook and no other user waiting.

What is counted is who is let in: whom an agent keeps waiting is not a matter of a test's patience.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
from hosts.account_files import ANN, BOB, EVE, FIRST_OF_ANN, FIRST_OF_ROOT, OTHERS
from hosts.peers import become
from hosts.running_agent import RunningAgent, answered, run_hook
from polling import poll_until

from canhazgpu.agent.client import call
from canhazgpu.agent.hook_client import connect
from canhazgpu.agent.listener.admission import FIRST_REQUESTS
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import encode

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes other users"),
]

HALF = b'{"method":"io.canha'
STATUS = encode({"method": interface.STATUS})
FEW, MANY = 8, 1000
PER_USER, PEOPLE = 3, 8


@dataclass(frozen=True, slots=True)
class Flood:
    """A process of a user with connections, each with half a request."""

    pid: int
    control: socket.socket

    def busy(self) -> int:
        """How many of its connections were told that the user has too many."""
        self.control.sendall(b"count\n")
        return int(self.control.recv(100))


@contextmanager
def flood(agent: RunningAgent, uid: int, count: int, sent: bytes = HALF) -> Iterator[Flood]:
    """Have a process of this user open so many connections."""
    ours, theirs = socket.socketpair()
    directory = os.open(agent.people_socket.parent, os.O_PATH)
    pid = os.fork()
    if pid == 0:
        ours.close()
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
            become(uid)
            flood_and_count(f"/proc/self/fd/{directory}/agent.sock", count, sent, theirs)
        finally:
            os._exit(0)
    theirs.close()
    os.close(directory)
    try:
        ours.settimeout(120)
        assert ours.recv(100) == b"open\n"
        yield Flood(pid, ours)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ours.close()


def flood_and_count(path: str, count: int, sent: bytes, control: socket.socket) -> None:
    connections = []
    for _ in range(count):
        one = socket.socket(socket.AF_UNIX)
        one.connect(path)
        # One that was refused at once is closed; why, is there to be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            one.sendall(sent)
        connections.append(one)
    control.sendall(b"open\n")
    while control.recv(100):
        busy = 0
        for one in connections:
            # One without an answer waits.
            with contextlib.suppress(OSError):
                busy += b"Busy" in one.recv(4096, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        control.sendall(f"{busy}\n".encode())


def is_served(agent: RunningAgent, uid: int) -> bool:
    """Whether a user's first try is answered."""
    read, write = os.pipe()
    directory = os.open(agent.people_socket.parent, os.O_PATH)
    pid = os.fork()
    if pid == 0:
        try:
            become(uid)
            with socket.socket(socket.AF_UNIX) as one:
                one.connect(f"/proc/self/fd/{directory}/agent.sock")
                one.settimeout(60)
                one.sendall(STATUS)
                os.write(write, b"n" if "error" in answered(one) else b"y")
        finally:
            os._exit(0)
    os.close(write)
    os.close(directory)
    os.waitpid(pid, 0)
    with os.fdopen(read, "rb") as stream:
        return stream.read() == b"y"


def is_hook_served(agent: RunningAgent) -> bool:
    return run_hook(agent, "prolog", {"SLURM_JOB_ID": "x"}).returncode == 2


@pytest.mark.parametrize("sent", [HALF, b"", STATUS[:-1]])
def test_one_user_has_only_the_places_of_one(agent: RunningAgent, sent: bytes) -> None:
    with flood(agent, ANN, MANY, sent) as anns:
        assert is_served(agent, BOB)
        assert is_hook_served(agent)
        assert anns.busy() >= MANY - PER_USER


@pytest.mark.parametrize("first", [FIRST_OF_ANN, FIRST_OF_ROOT])
def test_thousands_of_subordinate_uids_are_one_user(agent: RunningAgent, first: int) -> None:
    """Each of them alone has no more connections than one user may have."""
    with ExitStack() as stack:
        floods = [stack.enter_context(flood(agent, first + one, PER_USER)) for one in range(FEW)]
        # All before this were looked at: connections are taken in their order.
        assert is_served(agent, BOB) and is_served(agent, 0)
        assert sum(one.busy() for one in floods) == FEW * PER_USER - PER_USER
        assert is_hook_served(agent)
        # What is in a user's containers counts with what is not; what is in root's does not.
        assert is_served(agent, ANN) is (first == FIRST_OF_ROOT)


def test_users_who_have_all_places_keep_nobody_out(agent: RunningAgent) -> None:
    with ExitStack() as stack:
        for uid in OTHERS[: PEOPLE // PER_USER + 1]:
            stack.enter_context(flood(agent, uid, MANY // 10))
        for uid in (ANN, BOB, EVE, 0):
            assert is_served(agent, uid)
        assert is_hook_served(agent)


def test_as_many_users_as_there_may_be_keep_no_hook_waiting(agent: RunningAgent) -> None:
    crowd: Sequence[int] = OTHERS[: PEOPLE + FIRST_REQUESTS]
    with ExitStack() as stack:
        for uid in crowd:
            stack.enter_context(flood(agent, uid, 1))
        assert is_hook_served(agent)
    # And those who are outside are let in when others have left.
    assert is_served(agent, BOB)


def test_places_are_given_back_whatever_becomes_of_a_connection(agent: RunningAgent) -> None:
    for sent in (b"", HALF, b"\0", b"[]\0", STATUS, STATUS * 40, b"x" * 300_000):
        for _ in range(PER_USER):
            with flood(agent, ANN, PER_USER, sent):
                pass
    agent.wait_until_idle()
    with flood(agent, ANN, PER_USER) as anns:
        assert is_served(agent, BOB)
        assert anns.busy() == 0


def come_again_and_again(path: str) -> None:
    while True:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(path)


def test_who_comes_again_and_again_takes_nobodys_turn(agent: RunningAgent) -> None:
    """The queue of connections is full all the time, and each client waits for its turn in it."""
    directory = os.open(agent.people_socket.parent, os.O_PATH)
    crowd = []
    try:
        with flood(agent, EVE, MANY), flood(agent, EVE, MANY):
            agent.process.send_signal(signal.SIGSTOP)
            for _ in range(FEW):
                pid = os.fork()
                if pid == 0:
                    become(ANN)
                    come_again_and_again(f"/proc/self/fd/{directory}/agent.sock")
                crowd.append(pid)
            poll_until(lambda: is_queue_full(f"/proc/self/fd/{directory}/agent.sock"))
            agent.process.send_signal(signal.SIGCONT)
            for _ in range(FEW):
                assert call(agent.state_dir, interface.STATUS, wait_s=60)["release"]
                # As people's commands, and tasks of jobs, connect.
                connection, listener = connect(str(agent.people_socket), 60)
                connection.close()
                assert listener == agent.process.pid
            assert is_hook_served(agent)
    finally:
        agent.process.send_signal(signal.SIGCONT)
        for pid in crowd:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(directory)


def is_queue_full(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        one.setblocking(False)
        try:
            one.connect(path)
        except BlockingIOError:
            return True
    return False
