"""Ending processes: politely, then not, and never another one under the same pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from canhazgpu.node import termination
from canhazgpu.node.boot_clock import process_start_ticks, process_start_time, ticks_since_boot
from canhazgpu.node.termination import ProcessTerminator

IGNORES_TERM = (
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)"
)


@contextmanager
def running(
    program: str = "print(flush=True); import time; time.sleep(600)",
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(params=["descriptors", "without descriptors"])
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pidfds, and as on a kernel that has none."""
    if request.param != "descriptors":
        monkeypatch.delattr(os, "pidfd_open")


pytestmark = pytest.mark.usefixtures("_kernel")


def test_processes_end_by_sigterm() -> None:
    with running() as one, running() as other, ProcessTerminator([one.pid, other.pid]) as held:
        assert held.terminate({one.pid, other.pid}, grace_s=10) == ()
        assert {one.wait(5), other.wait(5)} == {-signal.SIGTERM}


def test_one_that_ignores_sigterm_is_killed_after_its_grace() -> None:
    with running(IGNORES_TERM) as process, ProcessTerminator([process.pid]) as held:
        assert held.terminate({process.pid}, grace_s=0.2) == ()
        assert process.wait(5) == -signal.SIGKILL


def test_a_stopped_process_ends_too() -> None:
    with running() as process, ProcessTerminator([process.pid]) as held:
        process.send_signal(signal.SIGSTOP)
        assert held.terminate({process.pid}, grace_s=0.2) == ()
        assert process.wait(5) in (-signal.SIGTERM, -signal.SIGKILL)


def test_only_what_was_held_and_chosen_is_ended() -> None:
    with (
        running() as held_only,
        running() as chosen_only,
        ProcessTerminator([held_only.pid]) as held,
    ):
        assert held.terminate({chosen_only.pid}, grace_s=0.1) == ()
        assert held_only.poll() is None and chosen_only.poll() is None


def test_a_process_that_ended_before_is_no_error() -> None:
    with running() as process:
        pid = process.pid
        held = ProcessTerminator([pid])
    with held:
        assert held.terminate({pid}, grace_s=0.1) == ()
    with ProcessTerminator([pid]) as gone:
        assert gone.terminate({pid}, grace_s=0.1) == ()


def test_another_process_under_a_held_pid_is_not_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as process:
        with ProcessTerminator([process.pid]) as held:
            # As if the pid had been used again: the process there started at another time.
            real = termination.is_alive
            monkeypatch.setattr(
                termination, "is_alive", lambda one: real(one) and one.pid != process.pid
            )
            assert held.terminate({process.pid}, grace_s=0.1) == ()
        assert process.poll() is None


def test_one_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination, "SIGKILL_WAIT_S", 0.1)
    monkeypatch.setattr(termination.ProcessWatch, "send_signal", lambda self, number: None)
    with running() as process, ProcessTerminator([process.pid]) as held:
        assert held.terminate({process.pid}, grace_s=0.1) == (process.pid,)


def test_when_a_process_started() -> None:
    before, time_before = ticks_since_boot(), time.time()
    with running() as process:
        started = process_start_ticks(process.pid)
        after = ticks_since_boot()
        at = process_start_time(process.pid)
    assert before is not None and started is not None and after is not None and at is not None
    assert before - 1 <= started <= after
    assert abs(at - time_before) < 30
    assert process_start_ticks(process.pid) is None
    assert process_start_time(process.pid) is None
