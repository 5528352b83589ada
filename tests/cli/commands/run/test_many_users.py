"""Many people at once, with intruders coming and going: what the commands themselves record."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hosts.shared_host import NODE, SharedHost, Started
from polling import poll_until

import fake_nvml

pytestmark = pytest.mark.slow

GPUS = 8
RUNS = 64
HOLD_S = 0.15
# Writes when it had which GPUs, and uses them as a CUDA program does.
COMMAND = """
import json, os, sys, time
began = time.monotonic()
time.sleep(float(sys.argv[2]))
record = {"gpus": os.environ["CUDA_VISIBLE_DEVICES"].split(","), "began": began,
          "ended": time.monotonic(), "uid": os.getuid()}
with open(sys.argv[1], "w") as stream:
    json.dump(record, stream)
"""


@dataclass(frozen=True)
class Record:
    gpus: tuple[str, ...]
    began: float
    ended: float
    uid: int


def records(directory: Path) -> list[Record]:
    found = [json.loads(path.read_text()) for path in directory.glob("run-*.json")]
    return [Record(tuple(one["gpus"]), one["began"], one["ended"], one["uid"]) for one in found]


def overlapping(first: Record, second: Record) -> bool:
    shared = set(first.gpus) & set(second.gpus)
    return bool(shared) and first.began < second.ended and second.began < first.ended


@contextmanager
def intruders(host: SharedHost, user: str) -> Iterator[list[str]]:
    """Start and end processes without reservation on two GPUs, until the block is left."""
    over = threading.Event()
    seen: list[str] = []

    def come_and_go() -> None:
        turn = 0
        while not over.is_set():
            gpu = host.node.gpu(turn % 2)
            with fake_nvml.start_gpu_process(gpu, 4000, user=user, name="rogue"):
                seen.append(gpu.uuid)
                over.wait(0.4)
            over.wait(0.2)
            turn += 1

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def test_sixty_four_runs_of_four_users_share_eight_gpus(
    make_host: Callable[..., SharedHost], people: tuple[str, ...]
) -> None:
    host = make_host(GPUS)
    chance = random.Random(7)
    runs: list[Started] = []
    wanted: dict[str, int] = {}
    with intruders(host, people[3]) as seen:
        for number in range(RUNS):
            count = chance.randint(1, 4)
            file = host.outputs / f"run-{number}.json"
            command = ("/usr/bin/python3", "-I", "-c", COMMAND, str(file), str(HOLD_S))
            wanted[file.name] = count
            runs.append(
                host.start(*("run", "--gpus", str(count), "--", *command), user=people[number % 4])
            )
        ended = [run.communicate(timeout=280) for run in runs]
    # All were served, each with as many GPUs as it asked for,
    assert [run.returncode for run in runs] == [0] * RUNS, [err for _, err in ended]
    done = records(host.outputs)
    assert len(done) == RUNS
    for name, count in wanted.items():
        assert len(json.loads((host.outputs / name).read_text())["gpus"]) == count
    # never two on one GPU,
    clashes = [
        (one, other)
        for place, one in enumerate(done)
        for other in done[place + 1 :]
        if overlapping(one, other)
    ]
    assert clashes == []
    assert seen
    # and everything is free in the end.
    poll_until(lambda: not host.holders(), "all GPUs to be free")
    assert host.view().queue == ()


def test_the_history_shows_the_order_of_the_queue(
    make_host: Callable[..., SharedHost],
) -> None:
    # Given a full node, and many who wait for different numbers of GPUs
    host = make_host(4)
    busy = host.start("run", "--gpus", "4", "--", "sleep", "600")
    poll_until(lambda: len(host.holders()) == 4)
    chance = random.Random(3)
    runs = []
    for number in range(16):
        count = str(chance.randint(1, 4))
        runs.append(host.start("run", "--gpus", count, "--", "sleep", "0.05"))
        poll_until(lambda expected=number + 1: len(host.view().queue) == expected)
    joined = [waiter.owner for waiter in host.view().queue]
    # If the GPUs become free
    busy.kill()
    assert [run.wait(60) for run in runs] == [0] * len(runs)
    # I expect them to be granted in the order of the queue
    events = host.ledger().history(NODE, 0)
    granted = dict.fromkeys(
        event.claim.owner for event in events if event.kind == "grant" and event.claim
    )
    assert [owner for owner in granted if owner in joined] == joined


def test_the_head_leaves_no_gpu_idle_that_it_could_have(host: SharedHost) -> None:
    # Given two waiters for one GPU each, of which both could run once one node is empty
    busy = host.start("run", "--gpus", "2", "--", "sleep", "600")
    poll_until(lambda: len(host.holders()) == 2)
    late = [host.start("run", "--", "sleep", "600") for _ in range(2)]
    poll_until(lambda: len(host.view().queue) == 2)
    busy.kill()
    poll_until(lambda: len(host.holders()) == 2 and not host.view().queue, "both to have a GPU")
    assert [one.poll() for one in late] == [None, None]


def test_people_killed_at_any_moment_leave_nothing_behind(
    make_host: Callable[..., SharedHost], people: tuple[str, ...]
) -> None:
    host = make_host(4)
    chance = random.Random(11)
    for _ in range(24):
        run = host.start_program(
            "run", "--gpus", str(chance.randint(1, 3)), "--", "sleep", "0.1",
            user=chance.choice(people),
        )  # fmt: skip
        time.sleep(chance.random() * 0.3)
        run.kill()
    # Whoever comes next gets all of them.
    done = host.call("run", "--gpus", "4", "--wait", "20s", "--", "true")
    assert (done.returncode, done.stderr.count("Error")) == (0, 0)
    poll_until(lambda: not host.holders())
    assert host.view().queue == ()
