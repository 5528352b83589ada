"""Servers and agents that tests start end with the tests, however those end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hosts.running_agent import RunningAgent
from plugins.ci_skips import Require
from polling import poll_until
from servers import private_redis

SUPPORT = Path(private_redis.__file__).parents[1]
BEGIN = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from servers.private_redis import PrivateRedis, shared_server
"""
KILLED = """
plain, paused, on_port = PrivateRedis(), PrivateRedis(), PrivateRedis(tcp=True)
paused.pause()
on_port.restart()
print(plain.pid, paused.pid, on_port.pid, shared_server().pid, flush=True)
time.sleep(600)
"""
FORKED = """
if os.fork() == 0:
    print(PrivateRedis().pid, flush=True)
    sys.stdin.read(1)
    os._exit(0)
os.wait()
"""
ENDED = """
shared = shared_server()
print(shared.pid, shared.directory, flush=True)
if os.fork() == 0:
    sys.exit()  # as Python programs end: what they registered is called
os.wait()
with shared.client() as client:
    assert client.ping()
"""
SHARED_BY_NONE = """
if os.fork() == 0:
    try:
        shared_server()
    except AssertionError as exc:
        print(exc)
    os._exit(0)
os.wait()
"""


def process_of_tests(do: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", BEGIN + do, str(SUPPORT)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def first_line(tests: subprocess.Popen[str]) -> list[str]:
    assert tests.stdout is not None
    return tests.stdout.readline().split()


def test_no_server_stays_of_tests_that_were_killed() -> None:
    with process_of_tests(KILLED) as tests:
        servers = [int(word) for word in first_line(tests)]
        assert len(servers) == 4 and all(map(lives, servers))
        tests.kill()
    poll_until(lambda: not any(map(lives, servers)), "the servers to end")


def test_no_server_stays_of_a_child_that_a_test_forked() -> None:
    with process_of_tests(FORKED) as tests:
        (server,) = (int(word) for word in first_line(tests))
        assert lives(server)
        tests.communicate("x")
    assert tests.returncode == 0
    poll_until(lambda: not lives(server), "the server to end")


def test_the_server_that_tests_share_ends_with_them_and_not_with_their_children() -> None:
    with process_of_tests(ENDED) as tests:
        server, directory = first_line(tests)
        tests.communicate()
    assert tests.returncode == 0
    assert not lives(int(server)) and not os.path.lexists(directory)


def test_a_child_gets_no_shared_server_of_its_own() -> None:
    with process_of_tests(SHARED_BY_NONE) as tests:
        out, _ = tests.communicate()
    assert (tests.returncode, "before it forks" in out) == (0, True)


@pytest.mark.slow
def test_no_process_of_an_agent_stays_that_is_stopped(tmp_path: Path, require: Require) -> None:
    require(os.geteuid() == 0, "only root may run an agent")
    with RunningAgent(tmp_path) as agent:
        stopped = agent.spare_handler()
        os.kill(stopped, signal.SIGSTOP)
    poll_until(lambda: not lives(stopped), "the agent's process to end")
