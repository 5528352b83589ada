"""The hooks' deadline, whatever they wait for."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import DeadlineError


def expects_the_deadline() -> pytest.RaisesExc[DeadlineError]:
    return pytest.raises(DeadlineError, match=r"no decision within 0\.2 s")


def test_it_ends_a_sleep() -> None:
    began = time.monotonic()
    with expects_the_deadline(), hard_deadline(0.2):
        time.sleep(20)
    assert 0.15 < time.monotonic() - began < 5


def test_it_ends_a_wait_for_a_peer_that_never_answers() -> None:
    near, far = socket.socketpair()
    with near, far, expects_the_deadline(), hard_deadline(0.2):
        near.recv(1)


def test_work_in_time_is_left_alone_afterwards() -> None:
    before_s, _ = signal.getitimer(signal.ITIMER_REAL)
    with hard_deadline(0.1):
        pass
    time.sleep(0.2)
    # Whatever was set before, as the test runner's own limit, goes on.
    after_s, _ = signal.getitimer(signal.ITIMER_REAL)
    assert (after_s == 0) == (before_s == 0)
    assert after_s <= before_s


def test_an_outer_deadline_goes_on_behind_an_inner_one() -> None:
    with expects_the_deadline(), hard_deadline(0.2):
        with hard_deadline(20):
            pass
        time.sleep(20)


def test_an_outer_deadline_that_is_nearer_counts() -> None:
    with pytest.raises(DeadlineError), hard_deadline(0.2), hard_deadline(20):
        time.sleep(20)


def test_what_is_imported_is_imported_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "slow_part.py").write_text("import time\ntime.sleep(0.5)\nwhole = True\n")
    (tmp_path / "slow_module.py").write_text("import slow_part\nwhole = slow_part.whole\n")
    with expects_the_deadline(), hard_deadline(0.2):
        importlib.import_module("slow_module")
        time.sleep(20)
    assert sys.modules["slow_module"].whole


def test_what_catches_the_inner_deadline_does_not_escape_the_outer_one() -> None:
    with expects_the_deadline(), hard_deadline(0.2):
        with pytest.raises(DeadlineError), hard_deadline(20):
            time.sleep(20)
        time.sleep(20)


@pytest.mark.parametrize("fails", [False, True])
def test_the_handler_before_it_is_there_again(fails: bool) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
    try:
        if fails:
            with expects_the_deadline(), hard_deadline(0.2):
                time.sleep(20)
        else:
            with hard_deadline(20):
                pass
        signal.raise_signal(signal.SIGALRM)
        assert heard == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, before)


class _Finalized:
    """Takes its time as it goes."""

    def __del__(self) -> None:
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_it_rings_again_where_python_dropped_it() -> None:
    began = time.monotonic()
    with expects_the_deadline(), hard_deadline(0.2):
        _Finalized()
        time.sleep(20)
    assert time.monotonic() - began < 5


@pytest.mark.slow
def test_time_in_which_the_process_is_stopped_does_not_count_as_running() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with hard_deadline(1.0, of_running=True):
            os.write(writing, b"!")
            time.sleep(0.5)
            os._exit(0)
    os.read(reading, 1)
    os.kill(child, signal.SIGSTOP)
    os.waitpid(child, os.WUNTRACED)
    time.sleep(2.0)
    os.kill(child, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(reading)
    os.close(writing)


def test_time_of_running_comes_to_its_end() -> None:
    with expects_the_deadline(), hard_deadline(0.2, of_running=True):
        time.sleep(20)
    with pytest.raises(DeadlineError), hard_deadline(0.2), hard_deadline(20, of_running=True):
        time.sleep(20)


@pytest.mark.slow
@pytest.mark.parametrize("of_running", [True, False])
def test_a_signal_that_python_handles_after_the_block_sets_no_timer(*, of_running: bool) -> None:
    child = os.fork()  # the time limit of the test has a timer of its own
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        return
    set_timer = signal.setitimer
    set_timer(signal.ITIMER_REAL, 0)

    def late(which: int, seconds: float) -> None:
        set_timer(which, seconds)
        if not seconds:
            signal.raise_signal(signal.SIGALRM)

    signal.setitimer = late  # type: ignore[assignment]
    with hard_deadline(20, of_running=of_running):
        pass
    os._exit(int(signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0)))
