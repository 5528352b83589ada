"""Requests that not even the end of every reservation would serve: told at once, or waited for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from hosts.shared_host import NODE, SharedHost, Started
from polling import poll_until

import fake_nvml

# Each of them starts several programs that wait for one another.
pytestmark = pytest.mark.slow

REFERENCE = (
    "Error: Not enough GPUs available. Requested: 3, Available: 1 (2 GPUs in use without"
    " reservation - run 'canhazgpu status' for details)"
)


@pytest.fixture
def three(make_host: Callable[..., SharedHost]) -> SharedHost:
    return make_host(3)


@contextmanager
def used(host: SharedHost, *indices: int) -> Iterator[None]:
    """Processes without a reservation on these GPUs."""
    with ExitStack() as stack:
        for index in indices:
            gpu = host.node.gpu(index)
            stack.enter_context(fake_nvml.start_gpu_process(gpu, 8000, name="rogue"))
        yield


def queued(host: SharedHost) -> list[str]:
    return [waiter.owner for waiter in host.view().queue]


def start_waiting(host: SharedHost, *arguments: str) -> Started:
    before = len(queued(host))
    process = host.start(*arguments)
    poll_until(lambda: len(queued(host)) == before + 1, "the request to join the queue")
    return process


def hold(host: SharedHost, gpus: int) -> Started:
    ready = host.outputs / "held"
    command = f"touch {ready}; exec sleep 300"
    process = host.start("run", "--gpus", str(gpus), "--", "sh", "-c", command)
    poll_until(ready.exists, "the command to run")
    return process


@pytest.mark.parametrize(
    "command",
    [("run", "--gpus", "3", "--", "python3", "train.py"), ("reserve", "--gpus", "3")],
)
def test_the_sentence_of_the_reference_at_once(three: SharedHost, command: tuple[str, ...]) -> None:
    with used(three, 0, 1):
        done = three.call(*command)
    assert done.returncode == 75
    assert done.stderr.splitlines()[-1] == REFERENCE
    assert "rogue" in done.stderr
    assert (done.stdout, queued(three), three.holders()) == ("", [], {})


def test_reservations_beside_it_change_nothing(three: SharedHost) -> None:
    hold(three, 1)
    (held,) = three.holders()
    (index,) = [one for one in range(3) if three.node.gpu(one).uuid != held][:1]
    with used(three, index):
        done = three.call("run", "--gpus", "3", "--", "true")
        later = start_waiting(three, "run", "--gpus", "2", "--", "true")
        assert later.poll() is None
        later.kill()
        later.communicate(timeout=60)
    assert done.returncode == 75
    assert "Requested: 3, Available: 1 (1 GPUs in use without reservation" in done.stderr


def test_somebody_else_on_a_reserved_gpu_counts_too(
    three: SharedHost, people: tuple[str, ...]
) -> None:
    ready = three.outputs / "ready"
    command = f"touch {ready}; exec sleep 300"
    process = three.start("run", "--gpus", "3", "--", "sh", "-c", command, user=people[0])
    poll_until(ready.exists, "the command to run")
    with fake_nvml.start_gpu_process(three.node.gpu(0), 5000, user=people[1], name="rogue"):
        done = three.call("run", "--gpus", "3", "--", "true")
    assert done.returncode == 75
    assert "Requested: 3, Available: 0 (1 GPUs in use without reservation" in done.stderr
    assert f"in use by {people[1]} WITHOUT RESERVATION" in done.stderr
    assert process.poll() is None


def test_quarantines_count_too(three: SharedHost) -> None:
    three.ledger().quarantine(NODE, three.uuids()[0], "broken fan", "root")
    done = three.call("reserve", "--gpus", "3")
    assert done.returncode == 75
    assert "Requested: 3, Available: 2 (1 quarantined - run 'canhazgpu status'" in done.stderr
    assert "is quarantined: broken fan" in done.stderr


@pytest.mark.parametrize("first", [True, False])
def test_who_waits_is_told_when_it_becomes_so(three: SharedHost, first: bool) -> None:
    hold(three, 2)
    if not first:
        start_waiting(three, "run", "--gpus", "2", "--", "sleep", "300")
    late = start_waiting(three, "run", "--gpus", "3", "--", "true")
    free = next(one for one in range(3) if three.node.gpu(one).uuid not in three.holders())
    with used(three, free):
        _, err = late.communicate(timeout=120)
    assert late.returncode == 75
    assert (
        "Error: Not enough GPUs available. Requested: 3, Available: 0 (1 GPUs in use without"
        " reservation - run 'canhazgpu status' for details)" in err
    )
    assert len(queued(three)) == (0 if first else 1)


def test_the_waiting_line_has_the_sentence(three: SharedHost) -> None:
    hold(three, 2)
    late = start_waiting(three, "run", "--gpus", "2", "--", "true")
    assert late.stderr is not None
    line = late.stderr.readline()
    late.kill()
    late.communicate(timeout=60)
    assert line.startswith(
        "canhazgpu: waiting for 2 GPUs on host1: next in the queue; held by root"
    )
    assert line.rstrip().endswith("; Not enough GPUs available. Requested: 2, Available: 1")


def test_with_wait_one_waits_for_others_to_end_their_use(three: SharedHost) -> None:
    with used(three, 0, 1):
        short = three.call("run", "--gpus", "3", "--wait", "1s", "--", "true")
        forever = start_waiting(three, "run", "--gpus", "3", "--wait", "forever", "--", "true")
        assert short.returncode == 75
        assert REFERENCE in short.stderr
        assert forever.stderr is not None
        # It is in the queue before it knows what it waits for.
        line = forever.stderr.readline()
    _, err = forever.communicate(timeout=60)
    assert forever.returncode == 0, err
    assert re.search(r"Requested: 3, Available: [12] \([12] GPUs in use without reservation", line)


def test_who_waits_for_others_use_keeps_nobody_waiting(three: SharedHost) -> None:
    with used(three, 0, 1):
        forever = start_waiting(three, "run", "--gpus", "3", "--wait", "forever", "--", "true")
        # One GPU is free, and whoever is content with it is served.
        assert three.call("run", "--wait", "60s", "--", "true").returncode == 0
        assert forever.poll() is None
    forever.communicate(timeout=60)
    assert forever.returncode == 0


def test_force_takes_what_others_use(three: SharedHost) -> None:
    with used(three, 0, 1):
        done = three.call("run", "--gpus", "3", "--force", "--", "true")
    assert done.returncode == 0
