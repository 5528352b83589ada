"""What counts as waiting for the store: the time between a request and its answer."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from canhazgpu.errors import StoreError
from canhazgpu.ledger.wait_budget import WaitBudget


class Peer:
    """A socket whose other end may answer; `arrives` is what a client asks it."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.asked = 0

    def arrives(self, wait_s: float) -> bool:
        self.asked += 1
        self.near.settimeout(wait_s)
        try:
            return bool(self.near.recv(1))
        except (TimeoutError, BlockingIOError):
            return False


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    with made.near, made.far:
        yield made


def test_an_answer_in_time_leaves_what_it_did_not_take(peer: Peer) -> None:
    budget = WaitBudget(10.0)
    timer = threading.Timer(0.3, peer.far.send, [b"x"])
    timer.start()
    budget.await_answer(peer.arrives, 60.0)
    timer.join()
    assert 0 < budget.left_s < 9.8


def test_without_an_answer_it_is_used_up(peer: Peer) -> None:
    budget = WaitBudget(0.2)
    with pytest.raises(StoreError, match="took too long"):
        budget.await_answer(peer.arrives, 60.0)
    assert budget.left_s == pytest.approx(0.05)


def test_one_answer_may_take_less_than_the_budget(peer: Peer) -> None:
    budget = WaitBudget(60.0)
    with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
        budget.await_answer(peer.arrives, 0.2)
    assert budget.left_s > 59


@pytest.mark.slow
def test_time_in_which_the_process_does_not_run_is_not_the_stores(peer: Peer) -> None:
    """Each look at the socket takes as long as it would on a machine without a free CPU."""
    budget = WaitBudget(0.3)

    def late(wait_s: float) -> bool:
        arrived = peer.arrives(wait_s)
        time.sleep(0.2)
        if peer.asked == 3:
            peer.far.send(b"x")
        return arrived

    budget.await_answer(late, 60.0)
    assert peer.asked == 4


def test_what_came_at_the_last_moment_is_seen(peer: Peer) -> None:
    budget = WaitBudget(0.1)
    looks: list[float] = []

    def arrives(wait_s: float) -> bool:
        looks.append(wait_s)
        if wait_s == 0:
            return peer.arrives(0)
        time.sleep(wait_s)
        peer.far.send(b"x")
        return False

    budget.await_answer(arrives, 60.0)
    assert looks[-1] == 0


def test_who_watches_may_end_it(peer: Peer) -> None:
    budget = WaitBudget(60.0)

    def watch() -> None:
        if peer.asked == 3:
            raise StoreError("another found it away")

    budget.watch = watch
    with pytest.raises(StoreError, match="another found it away"):
        budget.await_answer(peer.arrives, 60.0)


@pytest.mark.slow
def test_a_connection_that_fails_late_is_tried_again() -> None:
    tried: list[float] = []

    def connect(limit_s: float) -> str:
        tried.append(limit_s)
        if len(tried) == 1:
            time.sleep(limit_s + 1.0)
            raise TimeoutError
        return "connected"

    budget = WaitBudget(0.3)
    assert budget.attempt(connect, 60.0) == "connected"
    assert tried == [0.3, 0.3]
    assert budget.left_s == 0.3


@pytest.mark.parametrize(
    ("budget_s", "timeout_s", "error"), [(0.1, 60.0, StoreError), (60.0, 0.1, TimeoutError)]
)
def test_a_connection_that_fails_in_time_is_not_tried_again(
    budget_s: float, timeout_s: float, error: type[Exception]
) -> None:
    tried: list[float] = []

    def connect(limit_s: float) -> None:
        tried.append(limit_s)
        raise TimeoutError

    with pytest.raises(error):
        WaitBudget(budget_s).attempt(connect, timeout_s)
    assert tried == [0.1]


def in_a_child(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except StoreError:
            os._exit(1)
        finally:
            os._exit(2)
    return child


@pytest.mark.slow
def test_a_process_that_is_stopped_while_the_answer_comes_sees_it(peer: Peer) -> None:
    begun, begins = os.pipe()

    def wait() -> None:
        os.write(begins, b"!")
        WaitBudget(0.5).await_answer(peer.arrives, 60.0)

    child = in_a_child(wait)
    assert os.read(begun, 1) == b"!"
    os.close(begun)
    os.close(begins)
    os.kill(child, signal.SIGSTOP)
    os.waitpid(child, os.WUNTRACED)
    time.sleep(1.0)
    peer.far.send(b"x")
    os.kill(child, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
