"""Many at once: nobody gets what another has, and the queue keeps its order."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from ledger_samples import Store, job, manual, observation, run, uuid, wait_for_next_ms, waiter
from servers.private_redis import PrivateRedis

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import LimitError
from canhazgpu.ledger.grant_answers import GrantedGpus, QueuePosition, TooFewGpus
from canhazgpu.ledger.port import JOB_GRANT_OPTIONS, GrantOptions
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger

pytestmark = pytest.mark.slow

THREADS = 64
QUEUES = GrantOptions(queues=True)


def ledger_of(server: PrivateRedis) -> RedisLedger:
    return RedisLedger(StoreConfig(url=server.url, timeout_s=5.0), Role.WRITE)


def at_once(count: int, act: Callable[[int, Callable[[], object]], None]) -> None:
    """Run `act` in so many threads; each is given its number and how to wait for the others."""
    start = threading.Barrier(count)
    failures: list[BaseException] = []

    def run_one(number: int) -> None:
        try:
            act(number, start.wait)
        except BaseException as exc:
            failures.append(exc)
            start.abort()

    threads = [threading.Thread(target=run_one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_of_many_threads_exactly_as_many_win_as_there_are_gpus(store: Store, node: str) -> None:
    """64 ask for 1 to 4 of 8 GPUs at once; the answers are told apart by who owns what."""
    answers: dict[int, object] = {}

    def ask(number: int, together: Callable[[], object]) -> None:
        ledger = store.ledger()
        ledger.read_nodes([node])
        together()
        answers[number] = ledger.reserve_count(job(number), number % 4 + 1, observation(node, 8))

    at_once(THREADS, ask)
    won = {number: one.gpus for number, one in answers.items() if isinstance(one, GrantedGpus)}
    owned = [gpu for gpus in won.values() for gpu in gpus]
    assert len(answers) == THREADS
    assert len(set(owned)) == len(owned) == 8
    assert all(len(gpus) == number % 4 + 1 for number, gpus in won.items())
    (seen,) = store.ledger().read_nodes([node])
    recorded = {gpu: one.claim.owner for gpu, one in seen.reservations.items()}
    assert recorded == {gpu: job(number).owner for number, gpus in won.items() for gpu in gpus}


@pytest.mark.parametrize("options", [JOB_GRANT_OPTIONS, QUEUES], ids=["jobs", "an empty queue"])
def test_of_many_threads_that_want_one_gpu_each_exactly_eight_win(
    store: Store, node: str, options: GrantOptions
) -> None:
    answers: list[object] = []

    def ask(number: int, together: Callable[[], object]) -> None:
        ledger = store.ledger()
        ledger.read_nodes([node])
        together()
        answers.append(ledger.reserve_count(run(number), 1, observation(node, 8), options))

    at_once(THREADS, ask)
    won = [one.gpus[0] for one in answers if isinstance(one, GrantedGpus)]
    assert sorted(won) == [uuid(index) for index in range(8)]
    assert answers.count(TooFewGpus(1, 0, 8, 0, 0, 0)) == THREADS - 8


RACER = """
import json, sys
from ledger_samples import job, observation, uuid
from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.grant_answers import GrantedGpus
url, kind = sys.argv[1:]
ledger = RedisLedger(StoreConfig(url=url), Role.WRITE)
print("ready", flush=True)
sys.stdin.readline()
won = []
for turn in range(100):
    claim, seen = job(f"{kind}{turn}"), observation(f"n{turn}", 4)
    if kind == "given":
        answer = ledger.reserve_given(claim, [uuid(0), uuid(1), uuid(2)], seen)
    else:
        answer = ledger.reserve_count(claim, 3, seen)
    won.append(list(answer.gpus) if isinstance(answer, GrantedGpus) else None)
print(json.dumps(won))
"""


def test_two_processes_racing_for_the_same_gpus_never_both_win(
    restartable_server: PrivateRedis,
) -> None:
    """Two of four GPUs are wanted by both, in a hundred rounds; each round has one winner."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, restartable_server.url, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": ":".join(sys.path)},
        )
        for kind in ("given", "count")
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        given, count = (json.loads(racer.communicate(timeout=30)[0]) for racer in racers)
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    assert all((a is None) != (b is None) for a, b in zip(given, count, strict=True))
    held = [set(one.reservations) for one in ledger_of(restartable_server).read_nodes()]
    assert all(len(gpus) == 3 for gpus in held)
    assert len(held) == 100


def test_of_64_in_the_queue_only_the_head_wins(store: Store, node: str) -> None:
    """All ask at once, in round after round; each grant goes to who has waited longest."""
    ledger = store.ledger()
    for number in range(THREADS):
        ledger.join_queue(node, waiter(run(number)))
    answers: list[list[int]] = []

    def ask(number: int, together: Callable[[], object]) -> None:
        own = store.ledger()
        own.read_nodes([node])
        together()
        answer = own.reserve_count(run(number), 1, observation(node, 8), QUEUES)
        if isinstance(answer, GrantedGpus):
            answers[-1].append(number)
        else:
            assert isinstance(answer, QueuePosition | TooFewGpus)

    served: list[int] = []
    while len(served) < 8:
        answers.append([])
        at_once(THREADS, ask)
        (seen,) = ledger.read_nodes([node])
        won = [number for number in answers[-1] if number not in served]
        served += sorted(won)
        # Who has been served is no longer in the queue, everybody else still is, in order.
        assert served == list(range(len(served)))
        assert [one.owner for one in seen.queue] == [
            run(number).owner for number in range(len(served), THREADS)
        ]
    assert len(seen.reservations) == 8


@pytest.mark.slow
def test_everybody_is_served_in_the_order_of_the_queue(store: Store, node: str) -> None:
    """64 wait for one or more of 4 GPUs, are woken by what happens, and give them back."""
    places: dict[int, int] = {}
    holding: dict[str, int] = {}
    lock = threading.Lock()

    def live(number: int, together: Callable[[], object]) -> None:
        ledger, claim, count = store.ledger(), run(number), number % 4 + 1
        together()
        with lock:
            # Joined one after the other, so that the order is known.
            ledger.join_queue(node, waiter(claim, count))
            places[number] = len(places)
        last = ledger.wait_for_event(node, "", 0)
        answer: object = None
        while not isinstance(answer, GrantedGpus):
            wait_for_next_ms()
            answer = ledger.reserve_count(claim, count, observation(node), QUEUES)
            if not isinstance(answer, GrantedGpus):
                ledger.join_queue(node, waiter(claim, count))
                last = ledger.wait_for_event(node, last, 60)
        with lock:
            assert not set(answer.gpus) & set(holding)
            holding.update(dict.fromkeys(answer.gpus, number))
        with lock:
            for gpu in answer.gpus:
                del holding[gpu]
        ledger.release(node, claim.owner, "end")

    at_once(THREADS, live)
    ledger = store.ledger()
    granted = [one for one in ledger.history(node, 0) if one.kind == "grant" and one.claim]
    order = list(dict.fromkeys(one.claim.owner for one in granted if one.claim))
    assert order == [run(number).owner for number in sorted(places, key=lambda one: places[one])]
    (seen,) = ledger.read_nodes([node])
    assert (seen.reservations, seen.queue) == ({}, ())


def test_of_many_extensions_only_as_many_pass_as_the_latest_end_allows(
    store: Store, node: str
) -> None:
    store.ledger().reserve_count(manual(1, 60), 1, observation(node, 8))
    passed: list[int] = []

    def extend(number: int, together: Callable[[], object]) -> None:
        ledger = store.ledger()
        ledger.read_nodes([node])
        together()
        try:
            ledger.extend(node, manual(1).owner, 100, longest_s=400)
            passed.append(number)
        except LimitError:
            pass

    at_once(16, extend)

    assert len(passed) == 3
