"""The child that scans: its answer, its deadline, its deaths, and what it leaves behind."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from canhazgpu.probe import bounded_child
from canhazgpu.probe.bounded_child import BoundedChild, BoundedChildError

BUSY_S = 60.0
"""So long a busy machine may keep a process from a CPU."""
GRACE_S = bounded_child.EXIT_GRACE_S


def descriptors() -> set[str]:
    return {one.name for one in Path("/proc/self/fd").iterdir()}


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No descriptor, no child and no zombie stays after a test."""
    kill = BoundedChild._kill

    def kill_patiently(child: BoundedChild) -> None:
        # It needs a CPU to end.
        monkeypatch.setattr(bounded_child, "EXIT_GRACE_S", BUSY_S)
        kill(child)

    monkeypatch.setattr(BoundedChild, "_kill", kill_patiently)
    # What earlier tests have left to the collector goes now, not amid this one.
    gc.collect()
    before = descriptors(), children()
    yield
    assert (descriptors() - before[0], children() - before[1]) == (set(), set())


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_000])
def test_the_answer_is_what_the_work_returned(size: int) -> None:
    assert BoundedChild(lambda: b"x" * size, BUSY_S).result() == b"x" * size


def test_the_parent_goes_on_meanwhile(tmp_path: Path) -> None:
    told = tmp_path / "told"

    def work() -> bytes:
        while not told.exists():
            time.sleep(0.01)
        return b"done"

    child = BoundedChild(work, BUSY_S)
    told.touch()
    assert child.result() == b"done"


def test_an_exit_that_takes_its_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given all is written and the pipe is closed, I expect the answer, not a kill."""
    leave = os._exit

    def slowly(status: int) -> None:
        time.sleep(0.3)
        leave(status)

    monkeypatch.setattr(os, "_exit", slowly)
    assert BoundedChild(lambda: b"good", BUSY_S).result() == b"good"


def test_an_exit_that_never_comes_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "_exit", lambda _: time.sleep(600))
    began = time.monotonic()
    child = BoundedChild(lambda: b"good", 0.3)
    with pytest.raises(BoundedChildError, match=r"no answer within 0\.3 s"):
        child.result()
    assert time.monotonic() - began > 0.2


def without_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(1, "seccomp")

    monkeypatch.setattr(os, "pidfd_open", refuse)


@pytest.mark.parametrize("prepare", [lambda _: None, without_pidfd])
def test_a_hanging_child_is_killed_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch, prepare: Callable[[pytest.MonkeyPatch], None]
) -> None:
    prepare(monkeypatch)
    began = time.monotonic()
    child = BoundedChild(lambda: (time.sleep(600), b"")[1], 0.2)
    with pytest.raises(BoundedChildError, match=r"no answer within 0\.2 s"):
        child.result()
    assert time.monotonic() - began >= 0.2


def test_a_child_that_writes_and_then_hangs_is_killed_too() -> None:
    def work() -> bytes:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
        return b""

    with pytest.raises(BoundedChildError, match="no answer"):
        BoundedChild(work, 0.1).result()


def test_without_pidfd_the_answer_comes_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pidfd(monkeypatch)
    assert BoundedChild(lambda: b"x", BUSY_S).result() == b"x"


def test_a_work_that_raises_is_a_status() -> None:
    with pytest.raises(BoundedChildError, match="ended with status 1"):
        BoundedChild(lambda: bytes(1 // 0), BUSY_S).result()


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGTERM"])
def test_a_child_that_dies_names_its_signal(name: str) -> None:
    def die() -> bytes:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), signal.Signals[name])
        return b"never"

    with pytest.raises(BoundedChildError, match=f"died of {name}"):
        BoundedChild(die, BUSY_S).result()


def test_a_caller_that_ignores_sigchld_gets_its_answer() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert BoundedChild(lambda: b"x", BUSY_S).result() == b"x"
        with pytest.raises(BoundedChildError, match="no answer"):
            BoundedChild(lambda: (time.sleep(600), b"")[1], 0.1).result()
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("name", ["SIGTSTP", "SIGCONT", "SIGWINCH", "SIGURG"])
def test_no_handler_of_the_parents_runs_in_the_child(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """A Ctrl-Z reaches it as long as it is in the parent's process group."""
    number, noted = signal.Signals[name], tmp_path / "noted"

    def fork_and_signal() -> int:
        pid = fork()
        if pid == 0:
            os.kill(os.getpid(), number)
        return pid

    fork = os.fork
    before = signal.signal(number, lambda *_: noted.touch())
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fork", fork_and_signal)
            child = BoundedChild(lambda: b"x", BUSY_S)
        assert child.result() == b"x"
    finally:
        signal.signal(number, before)
    assert not noted.exists()


def test_the_child_holds_nothing_of_its_parent() -> None:
    kept = fcntl.fcntl(0, fcntl.F_DUPFD, 200)
    try:
        found = BoundedChild(
            lambda: (
                repr([str(Path(f"/proc/self/fd/{n}").readlink()) for n in (0, 1, 2)]).encode()
                + b"|%d" % (os.getsid(0) == os.getpid())
                + b"|%d" % Path("/proc/self/fd/200").exists()
            ),
            5,
        ).result()
    finally:
        os.close(kept)
    assert found == b"['/dev/null', '/dev/null', '/dev/null']|1|0"


def test_a_descriptor_beyond_the_first_thousand_is_no_obstacle() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip("this machine allows too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1200)]
    try:
        assert BoundedChild(lambda: b"x", BUSY_S).result() == b"x"
    finally:
        for one in taken:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_room_for_a_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(BoundedChildError, match="cannot start a process"):
        BoundedChild(lambda: b"", BUSY_S)


def run(code: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        timeout=2 * BUSY_S,
        check=False,
        **options,  # type: ignore[call-overload]
    )


UNKILLABLE = """
import os, time
from canhazgpu.probe import bounded_child
# A child in the kernel's hands: nothing ends it. Nor does the death of its parent.
bounded_child.PR_SET_PDEATHSIG = 38
os.kill = os.killpg = lambda *_: None
child = bounded_child.BoundedChild(lambda: (time.sleep(600), b"")[1], 0.1)
try:
    child.result()
except bounded_child.BoundedChildError as exc:
    print(child._pid, exc, flush=True)
os._exit(0)
"""


def test_a_child_that_nothing_ends_keeps_no_pipe_of_its_parents_open() -> None:
    done = run(UNKILLABLE)
    pid, _, text = done.stdout.decode().partition(" ")
    try:
        assert text.startswith("no answer within 0.1 s"), done.stderr
        os.kill(int(pid), 0)
    finally:
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.kill(int(pid), signal.SIGKILL)


def test_a_parent_without_stdio_gets_its_answer() -> None:
    code = """
import os
os.closerange(0, 3)
from canhazgpu.probe.bounded_child import BoundedChild
answer = BoundedChild(lambda: b"x" * 100000, 60).result()
os._exit(0 if answer == b"x" * 100000 else 9)
"""
    assert run(code).returncode == 0


def test_the_child_dies_with_its_parent() -> None:
    code = """
import os, time
from canhazgpu.probe.bounded_child import BoundedChild
child = BoundedChild(lambda: (time.sleep(600), b"")[1], 500)
time.sleep(0.1)
print(child._pid, flush=True)
os._exit(0)
"""
    pid = int(run(code).stdout)
    give_up = time.monotonic() + BUSY_S
    while time.monotonic() < give_up:
        try:
            if "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the child outlived its parent")


def test_what_the_child_started_ends_with_it_at_the_deadline() -> None:
    marker = f"{os.getpid()}{time.monotonic_ns()}"

    def work() -> bytes:
        subprocess.run(["/bin/sleep", "60", "0." + marker], check=False)
        return b""

    with pytest.raises(BoundedChildError, match="no answer"):
        BoundedChild(work, 0.4).result()
    assert gone(marker)


@pytest.mark.slow
def test_a_process_that_was_told_to_dies_with_the_child() -> None:
    marker = f"{os.getpid()}{time.monotonic_ns()}"

    def work() -> bytes:
        started = subprocess.Popen(
            ["/bin/sleep", "60", "0." + marker],
            start_new_session=True,
            preexec_fn=bounded_child.die_with_parent(),  # noqa: PLW1509 - the child has one thread
        )
        os.kill(os.getpid(), signal.SIGKILL)
        return str(started.pid).encode()

    with pytest.raises(BoundedChildError, match="SIGKILL"):
        BoundedChild(work, BUSY_S).result()
    assert gone(marker)


def gone(marker: str) -> bool:
    """Whether no process has the marker on its command line, now or soon."""
    give_up = time.monotonic() + BUSY_S
    while any(marker.encode() in line for line in command_lines()):
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)
    return True


def command_lines() -> Iterator[bytes]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                yield (process / "cmdline").read_bytes()


def test_the_grace_is_short() -> None:
    assert GRACE_S <= 0.5
