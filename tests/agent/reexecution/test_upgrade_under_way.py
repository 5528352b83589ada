"""An agent whose release is replaced: the same process goes on with another program."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts.changing_release import ChangingRelease, wait_for_execution, wait_for_release
from hosts.running_agent import RunningAgent, answered, is_alive, run_hook
from polling import poll_until

from canhazgpu.agent.handler import conversation
from canhazgpu.agent.listener import connections, requests_under_way
from canhazgpu.agent.socket_files import SCANNER_SOCKET, short_address
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import encode
from canhazgpu.cli.hook_site.agent_state import agent_state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may run an agent"),
]
JOB_CALL = encode({"method": interface.JOB_START, "parameters": {"environment": {}}})
CONFIRM = encode({"method": interface.CONFIRM})
STATUS = encode({"method": interface.STATUS})
LONG_WAITS = [
    (connections, "REQUEST_WAIT_S"),
    (requests_under_way, "REQUEST_WAIT_S"),
    (conversation, "CONFIRM_WAIT_S"),
]
LONG_WAIT = "".join(
    f"import {module.__name__}\n{module.__name__}.{limit} = 600.0\n" for module, limit in LONG_WAITS
)
"""Agent and handler wait for a client that gets no CPU, or through a start of an agent without."""
NOT_SENSIBLE = {"SLURM_JOB_ID": "x"}
"""A prolog that ends with 2, once somebody has looked at it."""


@pytest.fixture
def release(tmp_path: Path) -> ChangingRelease:
    return ChangingRelease(tmp_path / "release", LONG_WAIT)


@pytest.fixture
def agent(tmp_path: Path, release: ChangingRelease) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path / "agent", changes=release.changes) as made:
        yield made


def connected(path: Path, sent: bytes = b"") -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(60)
    with short_address(path) as address:
        made.connect(address)
    made.sendall(sent)
    return made


def wait_for_word(agent: RunningAgent, word: str) -> list[str]:
    """What the service manager is told, once it is told this."""
    while word not in (told := agent.notified.recv(4096).decode().splitlines()):
        pass
    return told


def shown(agent: RunningAgent) -> str:
    """What `agent status` prints."""
    return subprocess.run(
        [sys.executable, "-I", "-m", "canhazgpu.cli.main", "agent", "status"],
        env=agent.config_environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


def zombies(agent: RunningAgent) -> list[int]:
    found = []
    for pid in agent.all_children():
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z":
            found.append(pid)
    return found


def test_the_same_process_becomes_what_is_installed(
    agent: RunningAgent, release: ChangingRelease
) -> None:
    before = agent.status()
    assert (before["release"], before["executions"], before["upgrade_fault"]) == ("1.0", 0, None)

    release.install("2.0")
    wait_for_release(agent, "2.0")

    after = agent.status()
    assert after["pid"] == before["pid"] == agent.process.pid
    assert after["started_at"] == before["started_at"] < after["release_since"]
    assert after["executions"] == 1
    assert after["faults"] == []
    assert after["served"]["Status"] > before["served"].get("Status", 0)
    # What has ended was seen.
    poll_until(lambda: zombies(agent) == [])


def test_the_service_manager_is_told(agent: RunningAgent, release: ChangingRelease) -> None:
    release.install("2.0")

    reloading = wait_for_word(agent, "RELOADING=1")
    ready = wait_for_word(agent, "READY=1")

    assert reloading[1].startswith("MONOTONIC_USEC=")
    assert ready[1] == f"MAINPID={agent.process.pid}"


def test_one_upgrade_follows_another_and_one_goes_back(
    agent: RunningAgent, release: ChangingRelease
) -> None:
    for number, one in enumerate(("2.0", "3.0", "1.0"), 1):
        release.install(one)
        wait_for_release(agent, one)
        assert agent.status()["executions"] == number
        assert run_hook(agent, "prolog", NOT_SENSIBLE).returncode == 2
    assert agent.served("JobStart") == 3
    assert agent.status()["faults"] == []


def test_an_upgrade_in_the_middle_of_one_is_not_lost(
    agent: RunningAgent, release: ChangingRelease
) -> None:
    release.install("2.0")
    wait_for_word(agent, "RELOADING=1")
    release.install("3.0")
    wait_for_release(agent, "3.0")


def test_sighup_has_it_read_its_own_keys_anew(agent: RunningAgent) -> None:
    agent.change_config(agent={"orders": "check", "max_requests_per_user": 1})
    agent.process.send_signal(signal.SIGHUP)
    wait_for_word(agent, "READY=1")

    def is_second_refused() -> bool:
        with connected(agent.people_socket), connected(agent.people_socket, STATUS) as second:
            return bool(answered(second).get("error") == interface.BUSY)

    # One user has one request at a time from now on.
    poll_until(is_second_refused)


def test_hooks_that_come_all_the_time_are_answered(
    agent: RunningAgent, release: ChangingRelease
) -> None:
    """`run_hook` fails where the hook would have done its work itself."""
    ended, done, failed = threading.Event(), [0, 0], []

    def ask(number: int) -> None:
        while not ended.is_set():
            try:
                assert run_hook(agent, "prolog", NOT_SENSIBLE).returncode == 2
                done[number] += 1
            except BaseException as exc:
                failed.append(exc)
                return

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for one in threads:
        one.start()
    poll_until(lambda: all(done) or failed)
    release.install("2.0")
    wait_for_release(agent, "2.0")
    before = list(done)
    poll_until(lambda: (done[0] > before[0] and done[1] > before[1]) or failed)
    ended.set()
    for one in threads:
        one.join()
    assert failed == []
    assert agent.status()["faults"] == []


def test_a_hook_that_is_under_way_ends_as_it_would_have(
    agent: RunningAgent, release: ChangingRelease
) -> None:
    with connected(agent.hooks_socket, JOB_CALL) as hook:
        ready = answered(hook)["parameters"]

        release.install("2.0")
        wait_for_release(agent, "2.0")

        assert ready["agent"] == agent.process.pid
        assert agent.status()["children"] >= 1
        hook.sendall(CONFIRM)
        assert "parameters" in answered(hook)
    agent.wait_until_idle()
    poll_until(lambda: not is_alive(ready["pid"]))
    assert agent.served("JobStart") == 1
    assert agent.status()["faults"] == []


def test_the_new_program_sees_how_the_old_ones_handler_ends(
    agent: RunningAgent, release: ChangingRelease
) -> None:
    with connected(agent.hooks_socket, JOB_CALL) as hook:
        ready = answered(hook)["parameters"]
        release.install("2.0")
        wait_for_release(agent, "2.0")

        os.kill(ready["pid"], signal.SIGKILL)

        assert answered(hook) == {}
    poll_until(lambda: agent.status()["faults"])
    assert "JobStart" in agent.status()["faults"][0]["text"]
    assert "SIGKILL" in agent.status()["faults"][0]["text"]


def test_half_a_request_is_read_on(agent: RunningAgent) -> None:
    agent.process.send_signal(signal.SIGHUP)
    wait_for_word(agent, "RELOADING=1")
    with connected(agent.hooks_socket, JOB_CALL[:20]) as late:
        wait_for_word(agent, "READY=1")
        late.sendall(JOB_CALL[20:])
        assert "parameters" in answered(late)
    assert agent.status()["executions"] == 1


def test_a_connection_that_was_accepted_is_handed_on(tmp_path: Path) -> None:
    slow_to_cut_off = "import canhazgpu.agent.listener.connections as c; c.REQUEST_WAIT_S = 600.0"
    release = ChangingRelease(tmp_path / "release", slow_to_cut_off)
    with (
        RunningAgent(tmp_path / "agent", changes=release.changes) as agent,
        connected(agent.hooks_socket, JOB_CALL[:20]) as slow,
    ):
        # Both sockets are looked at in each step: it was let in before this answer.
        agent.status()
        agent.process.send_signal(signal.SIGHUP)
        wait_for_execution(agent)
        slow.sendall(JOB_CALL[20:])
        assert "parameters" in answered(slow)


def test_a_release_that_does_not_start_is_told_of_once(
    agent: RunningAgent, release: ChangingRelease
) -> None:
    release.install("broken 2.0")
    fault = poll_until(lambda: agent.status()["upgrade_fault"])
    assert fault["text"].endswith("a fault of broken 2.0")
    agent.process.send_signal(signal.SIGHUP)
    poll_until(lambda: agent.status()["upgrade_fault"]["at"] > fault["at"])

    found = agent.status()
    assert (found["release"], found["executions"]) == ("1.0", 0)
    assert [one["text"] for one in found["faults"]] == [
        f"the installed release is not taken: {fault['text']}"
    ]
    assert run_hook(agent, "prolog", NOT_SENSIBLE).returncode == 2
    assert agent_state(agent.state_dir, "n1").not_taken == fault["text"]
    assert f"the installed release is not taken: {fault['text']}" in shown(agent)

    release.install("2.1")
    wait_for_release(agent, "2.1")
    assert agent.status()["upgrade_fault"] is None
    assert agent_state(agent.state_dir, "n1").not_taken == ""
    assert "executed anew: 1, the last time" in shown(agent)


def test_what_did_not_start_is_tried_again(tmp_path: Path) -> None:
    """What it needs may be installed later, and its own files do not change."""
    release = ChangingRelease(tmp_path / "release", retry_s=0.5)
    with RunningAgent(tmp_path / "agent", changes=release.changes) as agent:
        release.change_code("import something_that_is_missing")
        release.install("2.0")
        fault = poll_until(lambda: agent.status()["upgrade_fault"])
        assert "something_that_is_missing" in fault["text"]
        release.change_code("")
        wait_for_release(agent, "2.0")


def test_one_that_is_removed_goes_on_serving(agent: RunningAgent, release: ChangingRelease) -> None:
    release.uninstall()
    assert poll_until(lambda: agent.status()["upgrade_fault"])
    assert run_hook(agent, "prolog", NOT_SENSIBLE).returncode == 2
    assert agent.status()["release"] == "1.0"
    release.install("2.0")
    wait_for_release(agent, "2.0")


def test_many_signals_are_no_harm_and_sigterm_ends_it(agent: RunningAgent) -> None:
    for _ in range(5):
        agent.process.send_signal(signal.SIGHUP)
    wait_for_execution(agent)
    for _ in range(5):
        agent.process.send_signal(signal.SIGHUP)
    agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(120) == 0
    assert not agent.hooks_socket.exists()


def test_sigterm_while_it_starts_ends_it_in_order(agent: RunningAgent) -> None:
    agent.process.send_signal(signal.SIGHUP)
    wait_for_word(agent, "RELOADING=1")
    agent.process.send_signal(signal.SIGHUP)
    agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(120) == 0
    assert not agent.people_socket.exists()


def test_one_that_gets_no_cpu_in_the_middle_goes_on(agent: RunningAgent) -> None:
    agent.process.send_signal(signal.SIGHUP)
    wait_for_word(agent, "RELOADING=1")
    agent.process.send_signal(signal.SIGSTOP)
    with (
        connected(agent.hooks_socket, JOB_CALL) as hook,
        connected(agent.people_socket, STATUS) as look,
    ):
        time.sleep(2)
        agent.process.send_signal(signal.SIGCONT)
        assert "parameters" in answered(hook)
        assert answered(look)["parameters"]["executions"] == 1


def check_of(agent: RunningAgent) -> int:
    """The pid of the child that tries the program, 0 for none."""
    for pid in agent.all_children():
        command = Path(f"/proc/{pid}/cmdline")
        if command.exists() and command.read_bytes().endswith(b"--check\0"):
            return pid
    return 0


def test_a_check_that_is_stopped_keeps_nobody_waiting(agent: RunningAgent) -> None:
    agent.process.send_signal(signal.SIGHUP)
    os.kill(poll_until(lambda: check_of(agent)), signal.SIGSTOP)
    assert poll_until(lambda: agent.status()["upgrade_fault"])
    agent.process.send_signal(signal.SIGHUP)
    wait_for_execution(agent)
    assert agent.status()["upgrade_fault"] is None


def test_no_second_agent_starts_after_it(agent: RunningAgent) -> None:
    agent.process.send_signal(signal.SIGHUP)
    wait_for_execution(agent)
    done = subprocess.run(
        [sys.executable, "-I", "-m", "canhazgpu.cli.main", "agent", "run"],
        env=agent.config_environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "another agent runs" in done.stderr


def test_the_scanner_is_the_new_programs(agent: RunningAgent, release: ChangingRelease) -> None:
    scanner_socket = agent.people_socket.with_name(SCANNER_SOCKET)
    # One that is being forked would be taken for the scanner.
    agent.spare_handler()
    with connected(scanner_socket):
        (scanner,) = poll_until(agent.children)
        release.install("2.0")
        wait_for_release(agent, "2.0")
        poll_until(lambda: not is_alive(scanner))
    with connected(scanner_socket):
        assert poll_until(agent.children) != [scanner]
    assert agent.status()["faults"] == []
