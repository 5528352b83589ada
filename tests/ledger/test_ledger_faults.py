"""What goes over the wire, and what happens when the store or the connection dies."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis
from ledger_values import Store, fresh_node, job, observation, pass_time, uuid
from redis_server import PrivateRedis, free_port

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import StoreError
from canhazgpu.ledger import store_calls
from canhazgpu.ledger.connect import Role
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.redis_ledger import RedisLedger
from canhazgpu.ledger.values import Granted, Short

Observe = Callable[..., Observation]


def ledger_of(server: PrivateRedis, timeout_s: float = 5.0) -> RedisLedger:
    return RedisLedger(StoreConfig(url=server.url, timeout_s=timeout_s), Role.WRITE)


@contextmanager
def sent(server: PrivateRedis) -> Iterator[list[str]]:
    """Collect what clients send inside the block, by MONITOR; a script's own calls are left out."""
    names: list[str] = []
    with socket.socket(socket.AF_UNIX) as watch, server.client() as direct:
        direct.ping()
        watch.settimeout(5)
        watch.connect(str(server.socket))
        watch.sendall(b"MONITOR\r\n")
        lines = watch.makefile("r")
        assert lines.readline().startswith("+OK")
        yield names
        direct.echo("that is all")
        for line in lines:
            if "that is all" in line:
                return
            if " lua]" not in line:
                names.append(line.split('"')[1].upper())


@pytest.mark.parametrize(
    ("operation", "wire"),
    [
        (lambda one, node: one.reserve_count(job(1), 1, observation(node)), ["EVALSHA"]),
        (lambda one, node: one.reserve_given(job(2), [uuid(3)], observation(node)), ["EVALSHA"]),
        (lambda one, node: one.release(node, job(0).owner, "end"), ["EVALSHA"]),
        (lambda one, node: one.publish_scan(observation(node)), ["EVALSHA", "SADD"]),
        (lambda one, node: one.look(), ["SMEMBERS", "MULTI", "TIME", *["HGETALL"] * 5, "EXEC"]),
        (lambda one, node: one.look([node]), ["MULTI", "TIME", *["HGETALL"] * 5, "EXEC"]),
    ],
)
def test_a_warm_operation_is_one_round_trip(
    own_server: PrivateRedis, operation: Callable[[RedisLedger, str], object], wire: list[str]
) -> None:
    node, ledger = fresh_node(), ledger_of(own_server)
    ledger.reserve_count(job(0), 1, observation(node))
    operation(ledger, node)
    with sent(own_server) as names:
        operation(ledger, node)
    assert names == wire


def test_a_first_reservation_costs_the_loading_and_the_listing(own_server: PrivateRedis) -> None:
    with sent(own_server) as names:
        ledger_of(own_server).reserve_count(job(0), 1, observation(fresh_node()))
    assert names == ["EVALSHA", "SCRIPT", "EVALSHA", "SADD"]
    with sent(own_server) as names:
        ledger_of(own_server).reserve_count(job(0), 1, observation(fresh_node()))
    assert names == ["EVALSHA", "SADD"]


def test_forgotten_scripts_are_sent_again(
    own_server: PrivateRedis,
) -> None:
    node, ledger = fresh_node(), ledger_of(own_server)
    ledger.reserve_count(job(1), 1, observation(node))
    with own_server.client() as direct:
        direct.script_flush()
    assert ledger.reserve_count(job(2), 1, observation(node)) == Granted((uuid(1),))
    with own_server.client() as direct:
        direct.script_flush()
    assert ledger.release(node, job(2).owner, "end") == [uuid(1)]


def test_a_restart_loses_nothing(own_server: PrivateRedis) -> None:
    node, ledger = fresh_node(), ledger_of(own_server)
    ledger.reserve_count(job(1), 2, observation(node))
    own_server.restart()
    # redis-py notices with the first use that its connection is dead, and takes a new one.
    try:
        again = ledger.reserve_count(job(1), 2, observation(node))
    except StoreError:
        again = ledger.reserve_count(job(1), 2, observation(node))
    assert again == Granted((uuid(0), uuid(1)), repeated=True)
    assert sorted(ledger.release(node, job(1).owner, "end")) == [uuid(0), uuid(1)]


def test_an_emptied_store_starts_anew(own_server: PrivateRedis) -> None:
    node, ledger = fresh_node(), ledger_of(own_server)
    ledger.reserve_count(job(1), 2, observation(node))
    with own_server.client() as direct:
        direct.flushall()
    assert ledger.reserve_count(job(2), 1, observation(node)) == Granted((uuid(0),))
    assert [one.node for one in ledger.look()] == [node]


OPERATIONS: dict[str, Callable[[RedisLedger, str], object]] = {
    "reserve_count": lambda one, node: one.reserve_count(job(1), 1, observation(node)),
    "reserve_given": lambda one, node: one.reserve_given(job(1), [uuid(0)], observation(node)),
    "release": lambda one, node: one.release(node, job(1).owner, "end"),
    "publish_scan": lambda one, node: one.publish_scan(observation(node)),
    "look": lambda one, node: one.look(),
    "look at one": lambda one, node: one.look([node]),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_dead_store_is_an_error_of_the_store(own_server: PrivateRedis, name: str) -> None:
    ledger = ledger_of(own_server, timeout_s=0.2)
    OPERATIONS[name](ledger, "n1")
    own_server.pause()
    began = time.monotonic()
    with pytest.raises(StoreError, match="no answer"):
        OPERATIONS[name](ledger, "n1")
    assert time.monotonic() - began < 2
    own_server.kill()
    for tried in (ledger, ledger_of(own_server, timeout_s=0.2)):
        with pytest.raises(StoreError, match="cannot reach the store"):
            OPERATIONS[name](tried, "n1")


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_key_of_another_type_is_an_error_of_the_store(
    own_server: PrivateRedis, name: str
) -> None:
    ledger = ledger_of(own_server)
    with own_server.client() as direct:
        direct.sadd("canhazgpu:nodes", "n1")
        for key in ("reservations", "released", "quarantine", "scan"):
            direct.set(f"canhazgpu:{{n1}}:{key}", "text")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        OPERATIONS[name](ledger, "n1")


class LossyProxy:
    """Passes bytes to a server, and can let an answer be lost after the command was carried out."""

    def __init__(self, server: PrivateRedis) -> None:
        self.path = server.directory / "proxy.sock"
        self.lose_answers = False
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._listener.settimeout(0.05)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> LossyProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            with client, socket.socket(socket.AF_UNIX) as upstream:
                upstream.connect(str(self._server.socket))
                for one in (client, upstream):
                    one.settimeout(0.05)
                self._pass_on(client, upstream)

    def _pass_on(self, client: socket.socket, upstream: socket.socket) -> None:
        while not self._over.is_set():
            for source, target in ((client, upstream), (upstream, client)):
                try:
                    data = source.recv(65536)
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not data or (source is upstream and self.lose_answers):
                    return
                target.sendall(data)


@pytest.mark.parametrize("kind", ["count", "given"])
def test_a_lost_answer_is_made_good_by_repeating(own_server: PrivateRedis, kind: str) -> None:
    def reserve() -> object:
        if kind == "count":
            return ledger.reserve_count(job(1), 2, observation("n1"))
        return ledger.reserve_given(job(1), [uuid(0), uuid(1)], observation("n1"))

    with LossyProxy(own_server) as proxy:
        ledger = RedisLedger(StoreConfig(url=f"unix://{proxy.path}"), Role.WRITE)
        ledger.look()
        with own_server.client() as direct:
            # Otherwise the answer that is lost is that the script is not known.
            for script in store_calls.SCRIPTS.glob("*.lua"):
                direct.script_load(store_calls.script_text(script.stem))
        proxy.lose_answers = True
        with pytest.raises(StoreError):
            reserve()
        assert set(ledger_of(own_server).look(["n1"])[0].reservations) == {uuid(0), uuid(1)}
        proxy.lose_answers = False
        assert reserve() == Granted((uuid(0), uuid(1)), repeated=True)

        proxy.lose_answers = True
        with pytest.raises(StoreError):
            ledger.release("n1", job(1).owner, "end")
        proxy.lose_answers = False
        assert ledger.release("n1", job(1).owner, "end") == []
        assert ledger_of(own_server).look(["n1"])[0].reservations == {}


def test_a_killed_connection_is_made_anew(own_server: PrivateRedis) -> None:
    ledger = ledger_of(own_server)
    ledger.reserve_count(job(1), 1, observation("n1"))
    with own_server.client() as direct:
        direct.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    try:
        again = ledger.reserve_count(job(1), 1, observation("n1"))
    except StoreError:
        again = ledger.reserve_count(job(1), 1, observation("n1"))
    assert again == Granted((uuid(0),), repeated=True)


def test_what_connecting_takes_makes_the_scan_older(
    own_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ledger_of(own_server)
    first.reserve_count(job(1), 1, observation("n1", 1))
    late = ledger_of(own_server)
    seen = observation("n1", 1)
    connect = store_calls.connect

    def slow(store: StoreConfig, role: Role) -> redis.Redis:
        time.sleep(0.1)
        first.release("n1", job(1).owner, "end")
        return connect(store, role)

    monkeypatch.setattr(store_calls, "connect", slow)
    assert late.reserve_count(job(2), 1, seen) == Short(1, 0, 0, 0, 0, stale=1)


def test_a_cluster_keeps_the_ledger_too() -> None:
    settings = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    with PrivateRedis(tcp=True, settings=settings) as server:
        with server.client() as direct:
            direct.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            give_up = time.monotonic() + 20
            while direct.cluster("INFO")["cluster_state"] != "ok":  # type: ignore[index]
                assert time.monotonic() < give_up
                time.sleep(0.01)
        url = f"redis+cluster://127.0.0.1:{server.port}"
        ledger = RedisLedger(StoreConfig(url=url), Role.WRITE)
        for node in ("n1", "n2"):
            assert ledger.reserve_count(job(1), 1, observation(node)) == Granted((uuid(0),))
            assert ledger.reserve_given(job(2), [uuid(1)], observation(node))
        assert ledger.release("n1", job(1).owner, "end") == [uuid(0)]
        assert [len(one.reservations) for one in ledger.look()] == [1, 2]


def test_of_many_threads_exactly_as_many_win_as_there_are_gpus(store: Store, node: str) -> None:
    """32 ask for 1 to 4 of 8 GPUs at once; the answers are told apart by who owns what."""
    answers: dict[int, Granted | Short] = {}
    start = threading.Barrier(32)

    def ask(number: int) -> None:
        ledger = store.ledger()
        ledger.look([node])
        start.wait()
        answers[number] = ledger.reserve_count(job(number), number % 4 + 1, observation(node, 8))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = {number: one.gpus for number, one in answers.items() if isinstance(one, Granted)}
    owned = [gpu for gpus in won.values() for gpu in gpus]
    assert len(answers) == 32
    assert len(set(owned)) == len(owned) == 8
    assert all(len(gpus) == number % 4 + 1 for number, gpus in won.items())
    (seen,) = store.ledger().look([node])
    recorded = {gpu: one.claim.owner for gpu, one in seen.reservations.items()}
    assert recorded == {gpu: job(number).owner for number, gpus in won.items() for gpu in gpus}


def test_of_many_threads_that_want_one_gpu_each_exactly_eight_win(store: Store, node: str) -> None:
    answers: list[Granted | Short] = []
    start = threading.Barrier(32)

    def ask(number: int) -> None:
        ledger = store.ledger()
        ledger.look([node])
        start.wait()
        answers.append(ledger.reserve_count(job(number), 1, observation(node, 8)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [one.gpus[0] for one in answers if isinstance(one, Granted)]
    assert sorted(won) == [uuid(index) for index in range(8)]
    assert answers.count(Short(1, 0, 8, 0, 0, 0)) == 24


RACER = """
import json, sys
from ledger_values import job, observation, pass_time, uuid
from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.connect import Role
from canhazgpu.ledger.redis_ledger import RedisLedger
from canhazgpu.ledger.values import Granted
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
    won.append(list(answer.gpus) if isinstance(answer, Granted) else None)
print(json.dumps(won))
"""


def test_two_processes_racing_for_the_same_gpus_never_both_win(own_server: PrivateRedis) -> None:
    """Two of four GPUs are wanted by both, in a hundred rounds; each round has one winner."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, own_server.url, kind],
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
    held = [set(one.reservations) for one in ledger_of(own_server).look()]
    assert all(len(gpus) == 3 for gpus in held)
    assert len(held) == 100


def test_time_passes_for_the_store(own_server: PrivateRedis) -> None:
    """Given a release, if time passes, a new scan is newer than it: what other tests rest on."""
    ledger = ledger_of(own_server)
    for turn in range(20):
        assert isinstance(ledger.reserve_count(job(turn), 1, observation("n1", 1)), Granted)
        ledger.release("n1", job(turn).owner, "end")
        pass_time()
