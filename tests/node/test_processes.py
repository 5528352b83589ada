"""Real processes: alive, gone, not collected, another user's, hidden, and pids used again."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from canhazgpu.node import process_watch, processes
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.process_watch import ProcessWatch
from canhazgpu.node.processes import identify_process, is_alive, read_stat, this_process
from canhazgpu.node.run_marker import MARKER_VARIABLE, processes_of_run

NOBODY = pwd.getpwnam("nobody").pw_uid


@contextmanager
def sleeper(**how: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"], **how)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def identity(process: subprocess.Popen[bytes]) -> ProcessId:
    found = identify_process(process.pid)
    assert found is not None
    return found


def test_a_process_lives_until_it_ends() -> None:
    with sleeper() as process:
        known = identity(process)
        assert is_alive(known)
    assert not is_alive(known)
    assert identify_process(process.pid) is None


def test_this_process_lives() -> None:
    assert is_alive(this_process())
    assert this_process().pid == os.getpid()


def test_one_that_is_not_collected_holds_no_gpu() -> None:
    with sleeper() as process:
        known = identity(process)
        process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 10
        while (stat := read_stat(process.pid)) is None or stat.state != "Z":
            assert time.monotonic() < deadline
        assert not is_alive(known)


ONLY_ITS_FIRST_THREAD_ENDS = """
import ctypes, platform, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""


def test_a_process_whose_first_thread_ended_lives() -> None:
    with subprocess.Popen([sys.executable, "-c", ONLY_ITS_FIRST_THREAD_ENDS]) as process:
        try:
            known = identity(process)
            deadline = time.monotonic() + 10
            while (stat := read_stat(process.pid)) is None or stat.state != "Z":
                assert time.monotonic() < deadline
            assert is_alive(known)
            assert identify_process(process.pid) == known
        finally:
            process.kill()
    assert not is_alive(known)


def test_a_pid_used_again_is_another_process() -> None:
    known = this_process()
    assert not is_alive(ProcessId(known.pid, known.started - 1))


def test_a_start_that_was_not_told_is_no_doubt() -> None:
    assert is_alive(ProcessId(os.getpid(), 0))


@pytest.mark.parametrize("name", ["a b", "a) R 1 (", "((("])
def test_a_name_with_parentheses_and_spaces_changes_nothing(name: str, tmp_path: Path) -> None:
    link = tmp_path / name
    link.symlink_to("/bin/sleep")
    with sleeper(executable=str(link)) as process:
        stat = read_stat(process.pid)
        assert stat is not None
        assert stat.parent == os.getpid()
        assert is_alive(identity(process))


def test_one_of_another_user_lives_although_it_may_not_be_signalled() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root starts processes of others")
    code = (
        "import os, sys; from canhazgpu.node.processes import is_alive, identify_process;"
        f"os.setuid({NOBODY}); one = identify_process(int(sys.argv[1])); print(is_alive(one))"
    )
    paths = os.pathsep.join(path for path in sys.path if path)
    with sleeper() as process:
        done = subprocess.run(
            [sys.executable, "-c", code, str(process.pid)],
            env={"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    assert done.stdout.strip() == "True"


def test_one_that_proc_hides_lives_as_long_as_its_pid(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given a /proc that shows nothing, as hidepid=2 shows of others
    with sleeper() as process:
        known = identity(process)
        monkeypatch.setattr(processes, "PROC", tmp_path)
        assert is_alive(known)
    assert not is_alive(known)


@pytest.mark.parametrize("descriptors", [True, False], ids=["pidfd", "without"])
def test_a_watch_notices_the_end(monkeypatch: pytest.MonkeyPatch, descriptors: bool) -> None:
    if not descriptors:
        monkeypatch.setattr(process_watch.os, "pidfd_open", refuse)
    with sleeper() as process, sleeper() as other:
        known = [identity(process), identity(other)]
        with closing(ProcessWatch(known)) as watched:
            assert not watched.wait_for_exit(0.01)
            watched.send_signal(signal.SIGKILL)
            assert watched.wait_for_exit(10)
        with closing(ProcessWatch(known)) as late:
            assert late.wait_for_exit(0)


def refuse(pid: int) -> int:
    raise OSError("no such call")


def test_a_watch_of_a_pid_used_again_signals_nobody() -> None:
    with sleeper() as process:
        other = ProcessId(process.pid, identity(process).started - 1)
        with closing(ProcessWatch([other])) as watched:
            assert watched.wait_for_exit(0)
            watched.send_signal(signal.SIGKILL)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)


@pytest.mark.slow
def test_what_carries_the_mark_belongs_to_the_run_wherever_it_went() -> None:
    environ = {**os.environ, MARKER_VARIABLE: "run:abc"}
    script = "sleep 60 & setsid sleep 60 & wait"
    with sleeper(), subprocess.Popen(["sh", "-c", script], env=environ) as shell:
        deadline = time.monotonic() + 10
        while len(found := processes_of_run("run:abc")) < 3:
            assert time.monotonic() < deadline
        assert shell.pid in {one.pid for one in found}
        assert processes_of_run("run:ab") == ()
        with closing(ProcessWatch(found)) as watched:
            watched.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while processes_of_run("run:abc"):
        assert time.monotonic() < deadline
