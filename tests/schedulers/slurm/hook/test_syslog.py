"""What the system's log hears of hooks, through a socket as syslogd has it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hook_jobs import job_variables

import fake_nvml

pytestmark = pytest.mark.slow

slurms_choice = pytest.mark.parametrize("node", ["slurm"], indirect=True)
INFORMATIONAL, WARNING = "<30>", "<28>"
RUN = (
    "from canhazgpu.node import system_log\n"
    "system_log.SYSLOG_SOCKET = {socket!r}\n"
    "from canhazgpu.{module} import main\n"
    "main({arguments})\n"
)


class SystemLog:
    """A socket that takes datagrams, and what came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def log_lines(self) -> list[str]:
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self._socket.recv(65536).decode())
        return found

    def fill(self) -> None:
        """Fill the queue, as any user may."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    other.sendto(b"x", str(self.path))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def system(tmp_path: Path) -> Iterator[SystemLog]:
    # A socket's address is short, and a test's directory may not be.
    path = Path("/tmp") / f"chg-log-{tmp_path.parent.name[-8:]}-{id(tmp_path)}"
    log = SystemLog(path)
    yield log
    log.close()
    path.unlink()


def run(
    node: Any, system: SystemLog, module: str, *, arguments: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    program = RUN.format(socket=str(system.path), module=module, arguments=arguments)
    done = node.python("-c", program, environ=node.environ(**variables))
    assert done.returncode == 0
    return done


@slurms_choice
def test_whoever_is_ended_is_in_the_systems_log(
    node: Any, system: SystemLog, people: tuple[str, str]
) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict": "kill,requeue"})
    name = "a\nb\x1b[2J 'c'"
    with fake_nvml.start_gpu_process(node.gpu(0), 8000, user=people[1], name=name) as process:
        run(node, system, "prolog.main")
        assert not process.alive
    ended, starts, outcome = system.log_lines()
    assert ended.startswith(f"{WARNING}canhazgpu[")
    assert f"job 12: ended PID {process.pid} (" in ended
    assert f" of {people[1]}: it used GPU 3 (" in ended
    assert starts.startswith(WARNING) and "job starts" in starts
    assert outcome.startswith(INFORMATIONAL) and "event=prolog" in outcome
    # A line for each, whatever a process is called.
    assert all(one.isprintable() for one in (ended, starts, outcome))
    # slurmd's log has what an administrator should see, and no more.
    assert len(node.log_lines()) == 2


@slurms_choice
def test_a_health_check_says_what_it_decided_and_nothing_else(node: Any, system: SystemLog) -> None:
    node.slurm(squeue="")
    run(node, system, "epilog.health_check", arguments="[]")
    assert system.log_lines() == []
    node.run("prolog", **job_variables(1))
    run(node, system, "epilog.health_check", arguments="[]")
    missing, released = system.log_lines()
    assert missing.startswith(INFORMATIONAL) and "event=epilog-missing node=n1 job=1 " in missing
    assert "event=released" in released and 'reason="job no longer on the node"' in released
    assert node.log() == ""


@slurms_choice
@pytest.mark.parametrize("fault", ["full", "nobody reads", "absent"])
def test_a_log_that_takes_nothing_keeps_no_hook(node: Any, system: SystemLog, fault: str) -> None:
    if fault == "full":
        system.fill()
    elif fault == "nobody reads":
        system.close()
    else:
        system.path.rename(system.path.with_suffix(".gone"))
    try:
        done = run(node, system, "prolog.main", **job_variables(1))
    finally:
        if fault == "absent":
            system.path.with_suffix(".gone").rename(system.path)
    assert (done.stdout, done.stderr) == ("", "")
    assert len(node.owners_by_gpu()) == 2
