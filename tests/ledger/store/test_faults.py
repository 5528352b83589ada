"""What goes over the wire, and what happens when the store or the connection dies."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import redis
from ledger_samples import job, new_node_name, observation, run, uuid, wait_for_next_ms, waiter
from servers.private_redis import BINARIES, PrivateRedis, cluster_of_one, need_binary
from servers.redis_proxy import StoreProxy

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import StoreError
from canhazgpu.ledger.grant_answers import GrantedGpus, TooFewGpus
from canhazgpu.ledger.port import GrantOptions
from canhazgpu.ledger.store import session
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import node_keys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.store.script_texts import script_names, script_text
from canhazgpu.node.process_id import ProcessId


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


HINTED = ["SADD", "EVALSHA"]
"""Where to look goes before the script, in the same round trip."""
LOOK = ["MULTI", "TIME", "HMGET", *["HGETALL"] * 4, "SISMEMBER", "EXEC"]


@pytest.mark.parametrize(
    ("operation", "wire"),
    [
        (lambda one, node: one.reserve_count(job(1), 1, observation(node)), ["SADD", *HINTED]),
        (
            lambda one, node: one.reserve_given(job(2), [uuid(3)], observation(node)),
            ["SADD", *HINTED],
        ),
        (lambda one, node: one.release(node, job(0).owner, "end"), HINTED),
        (lambda one, node: one.publish_scan(observation(node), [job(0).owner]), ["EVALSHA"]),
        (lambda one, node: one.renew(node, job(0).owner), ["EVALSHA"]),
        (lambda one, node: one.extend(node, job(0).owner, 60), HINTED),
        (lambda one, node: one.join_queue(node, waiter(run(1))), ["SADD", *HINTED]),
        (lambda one, node: one.leave_queue(node, [run(1).owner], "end"), ["EVALSHA"]),
        (lambda one, node: one.quarantine(node, uuid(1), "fan", "root"), ["EVALSHA"]),
        (lambda one, node: one.unquarantine(node, uuid(1), "root"), ["EVALSHA"]),
        (lambda one, node: one.forget_node(f"{node}-b"), ["EVALSHA", "SREM"]),
        (lambda one, node: one.history(node, 0), ["XRANGE", "HGETALL"]),
        (lambda one, node: one.wait_for_event(node, "", 5), ["XREVRANGE"]),
        (lambda one, node: one.wait_for_event(node, "0-0", 5), ["XREAD", "XREVRANGE"]),
        (lambda one, node: one.read_nodes(), ["SMEMBERS", *LOOK]),
        (lambda one, node: one.read_nodes([node]), LOOK),
    ],
)
def test_a_warm_operation_is_one_round_trip(
    restartable_server: PrivateRedis,
    operation: Callable[[RedisLedger, str], object],
    wire: list[str],
) -> None:
    node, ledger = new_node_name(), ledger_of(restartable_server)
    ledger.reserve_count(job(0), 1, observation(node))
    operation(ledger, node)
    with sent(restartable_server) as names:
        operation(ledger, node)
    assert names == wire


def test_a_first_reservation_costs_the_loading_and_the_listing(
    restartable_server: PrivateRedis,
) -> None:
    with sent(restartable_server) as names:
        ledger_of(restartable_server).reserve_count(job(0), 1, observation(new_node_name()))
    assert names == ["SADD", *HINTED, "SCRIPT", "EVALSHA", "SADD"]
    with sent(restartable_server) as names:
        ledger_of(restartable_server).reserve_count(job(0), 1, observation(new_node_name()))
    assert names == ["SADD", *HINTED, "SADD"]


def test_forgotten_scripts_are_sent_again(
    restartable_server: PrivateRedis,
) -> None:
    node, ledger = new_node_name(), ledger_of(restartable_server)
    ledger.reserve_count(job(1), 1, observation(node))
    with restartable_server.client() as direct:
        direct.script_flush()
    assert ledger.reserve_count(job(2), 1, observation(node)) == GrantedGpus((uuid(1),))
    with restartable_server.client() as direct:
        direct.script_flush()
    assert ledger.release(node, job(2).owner, "end") == [uuid(1)]


def test_a_restart_loses_nothing(restartable_server: PrivateRedis) -> None:
    node, ledger = new_node_name(), ledger_of(restartable_server)
    ledger.reserve_count(job(1), 2, observation(node))
    restartable_server.restart()
    # redis-py notices with the first use that its connection is dead, and takes a new one.
    try:
        again = ledger.reserve_count(job(1), 2, observation(node))
    except StoreError:
        again = ledger.reserve_count(job(1), 2, observation(node))
    assert again == GrantedGpus((uuid(0), uuid(1)), repeated=True)
    assert sorted(ledger.release(node, job(1).owner, "end")) == [uuid(0), uuid(1)]


def test_an_emptied_store_starts_anew(restartable_server: PrivateRedis) -> None:
    node, ledger = new_node_name(), ledger_of(restartable_server)
    ledger.reserve_count(job(1), 2, observation(node))
    with restartable_server.client() as direct:
        direct.flushall()
    assert ledger.reserve_count(job(2), 1, observation(node)) == GrantedGpus((uuid(0),))
    assert [one.node for one in ledger.read_nodes()] == [node]


OPERATIONS: dict[str, Callable[[RedisLedger, str], object]] = {
    "reserve_count": lambda one, node: one.reserve_count(job(1), 1, observation(node)),
    "reserve_given": lambda one, node: one.reserve_given(job(1), [uuid(0)], observation(node)),
    "release": lambda one, node: one.release(node, job(1).owner, "end"),
    "publish_scan": lambda one, node: one.publish_scan(observation(node)),
    "renew": lambda one, node: one.renew(node, job(1).owner),
    "extend": lambda one, node: one.extend(node, job(1).owner, 60),
    "wait_turn": lambda one, node: one.join_queue(node, waiter(run(1))),
    "leave_queue": lambda one, node: one.leave_queue(node, [run(1).owner], "end"),
    "quarantine": lambda one, node: one.quarantine(node, uuid(1), "fan", "root"),
    "unquarantine": lambda one, node: one.unquarantine(node, uuid(1), "root"),
    "forget_node": lambda one, node: one.forget_node(node),
    "history": lambda one, node: one.history(node, 0),
    "await_change": lambda one, node: one.wait_for_event(node, "", 0),
    "look": lambda one, node: one.read_nodes(),
    "look at one": lambda one, node: one.read_nodes([node]),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_dead_store_is_an_error_of_the_store(restartable_server: PrivateRedis, name: str) -> None:
    ledger = ledger_of(restartable_server, timeout_s=0.2)
    OPERATIONS[name](ledger, "n1")
    restartable_server.pause()
    with pytest.raises(StoreError, match="no answer"):
        OPERATIONS[name](ledger, "n1")
    restartable_server.kill()
    for tried in (ledger, ledger_of(restartable_server, timeout_s=0.2)):
        with pytest.raises(StoreError, match="cannot reach the store"):
            OPERATIONS[name](tried, "n1")


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_key_of_another_type_is_an_error_of_the_store(
    restartable_server: PrivateRedis, name: str
) -> None:
    ledger = ledger_of(restartable_server)
    with restartable_server.client() as direct:
        direct.sadd("canhazgpu:nodes", "n1")
        for key in node_keys("n1").in_order():
            direct.set(key, "text")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        OPERATIONS[name](ledger, "n1")


def test_a_store_that_dies_wakes_who_waits_with_an_error(restartable_server: PrivateRedis) -> None:
    ledger, told = ledger_of(restartable_server), []

    def wait() -> None:
        try:
            ledger.wait_for_event("n1", "0-0", 250)
        except StoreError as exc:
            told.append(str(exc))

    thread = threading.Thread(target=wait)
    with sent(restartable_server) as names:
        thread.start()
        while "XREAD" not in names:
            ledger.read_nodes(["n1"])
            with restartable_server.client() as direct:
                if any(one["cmd"] == "xread" for one in direct.client_list()):
                    break
    restartable_server.kill()
    thread.join()
    assert "cannot reach the store" in told[0]


def test_a_waiter_keeps_its_place_over_a_restart(restartable_server: PrivateRedis) -> None:
    ledger = ledger_of(restartable_server)
    for number in (2, 1):
        ledger.join_queue("n1", waiter(run(number)))
    before = ledger.wait_for_event("n1", "", 0)
    restartable_server.restart()
    again = ledger_of(restartable_server)
    assert again.join_queue("n1", waiter(run(2))) == 1
    assert again.wait_for_event("n1", "", 0) == before


@pytest.mark.parametrize("kind", ["count", "given"])
def test_a_lost_answer_is_made_good_by_repeating(
    restartable_server: PrivateRedis, kind: str
) -> None:
    def reserve() -> object:
        if kind == "count":
            return ledger.reserve_count(job(1), 2, observation("n1"))
        return ledger.reserve_given(job(1), [uuid(0), uuid(1)], observation("n1"))

    with StoreProxy(restartable_server) as proxy:
        ledger = RedisLedger(StoreConfig(url=f"unix://{proxy.path}"), Role.WRITE)
        ledger.read_nodes()
        with restartable_server.client() as direct:
            # Otherwise the answer that is lost is that the script is not known.
            for script in script_names():
                direct.script_load(script_text(script))
        proxy.lose_answers = True
        with pytest.raises(StoreError):
            reserve()
        assert set(ledger_of(restartable_server).read_nodes(["n1"])[0].reservations) == {
            uuid(0),
            uuid(1),
        }
        proxy.lose_answers = False
        assert reserve() == GrantedGpus((uuid(0), uuid(1)), repeated=True)

        proxy.lose_answers = True
        with pytest.raises(StoreError):
            ledger.release("n1", job(1).owner, "end")
        proxy.lose_answers = False
        assert ledger.release("n1", job(1).owner, "end") == []
        assert ledger_of(restartable_server).read_nodes(["n1"])[0].reservations == {}


REPEATED: dict[str, tuple[Callable[[RedisLedger], object], object]] = {
    "wait_turn": (lambda one: one.join_queue("n1", waiter(run(1))), 2),
    "leave_queue": (lambda one: one.leave_queue("n1", [run(9).owner], "end"), None),
    "renew": (lambda one: one.renew("n1", run(5).owner, [ProcessId(7, 8)]), [uuid(0)]),
    "release": (lambda one: one.release("n1", run(5).owner, "end", by="root"), []),
    "quarantine": (lambda one: one.quarantine("n1", uuid(1), "fan", "root"), False),
    "unquarantine": (lambda one: one.unquarantine("n1", uuid(2), "root"), False),
    "forget_node": (lambda one: one.forget_node("n2"), True),
    "reserve": (
        lambda one: one.reserve_count(run(9), 2, observation("n1"), GrantOptions(queues=True)),
        GrantedGpus((uuid(1), uuid(3)), repeated=True),
    ),
}
"""Operations and what their repetition answers, the first answer being lost."""


@pytest.mark.parametrize("name", REPEATED)
def test_what_is_repeated_after_a_lost_answer_is_done_once(
    restartable_server: PrivateRedis, name: str
) -> None:
    direct = ledger_of(restartable_server)
    direct.reserve_count(run(5), 1, observation("n1"))
    direct.quarantine("n1", uuid(2), "old", "root")
    direct.join_queue("n1", waiter(run(9)))
    direct.publish_scan(observation("n2"))
    operation, expected = REPEATED[name]
    with StoreProxy(restartable_server) as proxy:
        ledger = RedisLedger(StoreConfig(url=f"unix://{proxy.path}"), Role.WRITE)
        with restartable_server.client() as client:
            for script in script_names():
                client.script_load(script_text(script))
        proxy.lose_answers = True
        with pytest.raises(StoreError):
            operation(ledger)
        proxy.lose_answers = False
        (once,) = direct.read_nodes(["n1"])
        events = direct.history("n1", 0)
        assert operation(ledger) == expected
    (twice,) = direct.read_nodes(["n1"])
    assert direct.history("n1", 0) == events
    assert set(twice.reservations) == set(once.reservations)
    assert twice.released_at == once.released_at
    assert twice.quarantines == once.quarantines
    assert [one.owner for one in twice.queue] == [one.owner for one in once.queue]


def test_a_killed_connection_is_made_anew(restartable_server: PrivateRedis) -> None:
    ledger = ledger_of(restartable_server)
    ledger.reserve_count(job(1), 1, observation("n1"))
    with restartable_server.client() as direct:
        direct.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    try:
        again = ledger.reserve_count(job(1), 1, observation("n1"))
    except StoreError:
        again = ledger.reserve_count(job(1), 1, observation("n1"))
    assert again == GrantedGpus((uuid(0),), repeated=True)


def test_what_connecting_takes_makes_the_scan_older(
    restartable_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ledger_of(restartable_server)
    first.reserve_count(job(1), 1, observation("n1", 1))
    late = ledger_of(restartable_server)
    seen = observation("n1", 1)
    connect = session.connect

    def slow(*given: Any) -> redis.Redis:
        time.sleep(0.1)
        first.release("n1", job(1).owner, "end")
        return connect(*given)

    monkeypatch.setattr(session, "connect", slow)
    assert late.reserve_count(job(2), 1, seen) == TooFewGpus(1, 0, 0, 0, 0, stale=1)


def everything_read(ledger: RedisLedger, node: str) -> dict[str, Any]:
    """What each question about a node is answered, without the times of the answers."""
    (seen,) = ledger.read_nodes([node])
    (by_page,) = [one for page in ledger.read_node_pages() for one in page]
    heads = [replace(one, read_at=0.0) for one in ledger.read_node_heads()]
    return {
        "node": replace(seen, read_at=0.0),
        "page": replace(by_page, read_at=0.0),
        "heads": heads,
        "queues": ledger.read_queues()[1],
        "events": ledger.recent_events(3600.0)[1],
        "history": ledger.history(node, 0.0),
        "names": ledger.node_names(),
        "job": ledger.find_job("1").nodes,
        "user": ledger.find_user(1000, 1).nodes,
        "event": ledger.wait_for_event(node, "0-0", 1.0),
    }


@pytest.mark.parametrize("binary", BINARIES)
def test_a_store_without_memory_is_read_all_the_same(binary: str) -> None:
    """Redis refuses transactions then, in which nothing is changed too; Valkey does not."""
    node = new_node_name()
    with PrivateRedis(binary=need_binary(binary)) as server, server.client() as direct:
        ledger = ledger_of(server)
        assert isinstance(ledger.reserve_count(job(1), 2, observation(node)), GrantedGpus)
        assert ledger.join_queue(node, waiter(run(1))) == 1
        before = everything_read(ledger, node)
        assert len(before["node"].reservations) == 2
        direct.config_set("maxmemory", "1")
        with pytest.raises(StoreError, match="out of memory"):
            ledger.reserve_count(job(2), 1, observation(node))
        # By a process that has asked nothing before, too.
        assert everything_read(ledger_of(server), node) == before


@pytest.mark.slow
def test_a_cluster_keeps_the_ledger_too() -> None:
    with cluster_of_one() as server:
        url = f"redis+cluster://127.0.0.1:{server.port}"
        ledger = RedisLedger(StoreConfig(url=url), Role.WRITE)
        for node in ("n1", "n2"):
            assert ledger.reserve_count(job(1), 1, observation(node)) == GrantedGpus((uuid(0),))
            assert ledger.reserve_given(job(2), [uuid(1)], observation(node))
        assert ledger.release("n1", job(1).owner, "end") == [uuid(0)]
        assert [len(one.reservations) for one in ledger.read_nodes()] == [1, 2]
        assert ledger.join_queue("n1", waiter(run(1))) == 1
        last = ledger.history("n1", 0)[-1]
        assert (last.kind, ledger.wait_for_event("n1", "0-0", 250)) == ("wait", last.id)
        assert ledger.wait_for_event("n1", last.id, 0.01) == last.id
        assert ledger.quarantine("n1", uuid(0), "fan", "root")
        assert ledger.renew("n2", job(1).owner) == [uuid(0)]
        assert ledger.release("n1", job(2).owner, "end") == [uuid(1)]
        assert ledger.forget_node("n1")
        assert [one.node for one in ledger.read_nodes()] == ["n2"]


def test_time_passes_for_the_store(restartable_server: PrivateRedis) -> None:
    """Given a release, if time passes, a new scan is newer than it: what other tests rest on."""
    ledger = ledger_of(restartable_server)
    for turn in range(20):
        assert isinstance(ledger.reserve_count(job(turn), 1, observation("n1", 1)), GrantedGpus)
        ledger.release("n1", job(turn).owner, "end")
        wait_for_next_ms()
