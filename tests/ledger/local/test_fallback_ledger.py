"""The ledger that falls back: how long it waits, when it asks again, and what it tells."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_samples import job, new_node_name, observation, uuid, wait_for_next_ms
from ledgers.hook_ledger import CommittingLedger, hook_ledger
from servers.private_redis import PrivateRedis
from servers.redis_proxy import StoreProxy

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import ConfigError, StoreError
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus
from canhazgpu.ledger.journal_entries import HEALTH, JournalEntry
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.port import GrantOptions, Ledger
from canhazgpu.ledger.store import name_resolution
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.store.name_resolution import resolve_hosts
from canhazgpu.ledger.values import Claim, Waiter
from canhazgpu.ledger.wait_budget import WaitBudget


class Node:
    """One node's directory; each `process` is one process of it."""

    def __init__(self, place: Path, url: str) -> None:
        self.name = new_node_name()
        self.place = place
        self.url = url
        self.told: list[str] = []
        self.opened = 0

    def process(
        self, *, local: bool = True, wait_budget_s: float = 0.5, **more: Any
    ) -> CommittingLedger:
        book = BookFile(self.place, self.name, "b", JobRecords(self.place), self.told.append)
        reconciler = Reconciler(
            self.name, book, self.told.append, more.pop("is_gone", lambda _: False)
        )
        outage = StoreOutage(self.place, more.pop("life_s", 60.0))
        return hook_ledger(
            self.name,
            self.open_store,
            book,
            outage,
            reconciler,
            self.told.append,
            wait_budget_s=wait_budget_s,
            decides_alone=local,
        )

    def open_store(self, budget: WaitBudget | None = None) -> Ledger:
        self.opened += 1
        return RedisLedger(StoreConfig(url=self.url, timeout_s=5.0), Role.WRITE, budget)

    def seen(self) -> Any:
        wait_for_next_ms()
        return observation(self.name)

    def forget_outage(self) -> None:
        (self.place / "store-outage").unlink()


@pytest.fixture
def node(restartable_server: PrivateRedis, tmp_path: Path) -> Iterator[Node]:
    yield Node(tmp_path, restartable_server.url)
    if restartable_server.is_running():
        restartable_server.resume()


def test_with_its_store_it_is_the_stores_ledger(node: Node) -> None:
    ledger = node.process()
    assert ledger.reserve_count(job(1), 1, node.seen()) == GrantedGpus((uuid(0),))
    assert ledger.without_store == ""
    assert ledger.history(node.name, 0.0)[0].kind == "grant"
    assert ledger.join_queue(node.name, Waiter("run:a", "eve", 1002, 1)) == 1
    assert len(ledger.read_nodes([node.name])[0].queue) == 1
    ledger.leave_queue(node.name, ["run:a"], "gave up")
    assert ledger.extend(node.name, job(1).owner, 60) == []
    assert ledger.wait_for_event(node.name, "", 0) != ""
    assert ledger.renew(node.name, job(1).owner) == [uuid(0)]
    ledger.publish_scan(node.seen())
    assert [one.node for one in ledger.read_nodes()] == [node.name]
    assert ledger.release(node.name, job(1).owner, "end") == [uuid(0)]
    assert ledger.forget_node(node.name)
    assert node.told == []


def test_a_dead_store_is_asked_once_by_each_process(
    node: Node, restartable_server: PrivateRedis
) -> None:
    restartable_server.kill()
    ledger = node.process()
    assert ledger.reserve_count(job(1), 1, node.seen()) == GrantedGpus((uuid(0),))
    assert ledger.reserve_count(job(2), 1, node.seen()) == GrantedGpus((uuid(1),))
    assert node.opened == 1
    assert len(node.told) == 1 and node.told[0].startswith("event=store-lost")
    assert node.process().read_nodes([node.name])[0].reservations.keys() == {uuid(0), uuid(1)}
    assert node.opened == 2
    assert len(node.told) == 1


def test_what_only_the_store_can_do_fails_without_it(
    node: Node, restartable_server: PrivateRedis
) -> None:
    restartable_server.kill()
    ledger = node.process()
    asks: list[Callable[[], object]] = [
        lambda: ledger.history(node.name, 0.0),
        ledger.read_nodes,
        lambda: ledger.read_nodes(["elsewhere"]),
        lambda: ledger.wait_for_event(node.name, "", 0),
        lambda: ledger.forget_node(node.name),
        lambda: ledger.record_entries(node.name, "", []),
    ]
    for ask in asks:
        with pytest.raises(StoreError, match="cannot reach"):
            ask()
    ledger.publish_scan(node.seen())
    ledger.leave_queue(node.name, ["run:a"], "gave up")


@pytest.mark.slow
def test_a_store_that_stops_in_between_costs_its_patience_once(
    node: Node, restartable_server: PrivateRedis
) -> None:
    ledger = node.process(wait_budget_s=1.0)
    ledger.read_nodes([node.name])
    restartable_server.pause()
    assert ledger.reserve_count(job(1), 1, node.seen()) == GrantedGpus((uuid(0),))
    assert "took too long" in ledger.without_store
    assert node.opened == 1


@pytest.mark.slow
def test_the_patience_is_one_for_all_questions(
    node: Node, restartable_server: PrivateRedis
) -> None:
    with StoreProxy(restartable_server) as proxy:
        proxy.delay_s = 0.2
        node.url = proxy.url
        ledger = node.process(wait_budget_s=0.9)
        answered = 0
        while not ledger.without_store:
            ledger.read_nodes([node.name])
            answered += 1
            # Four fit into it, and more where this process gets no CPU: what it could not see does
            # not count. A budget for each question would not end.
            assert answered < 20
        assert "took too long" in ledger.without_store
        assert answered > 1


def test_who_waits_goes_on_when_another_has_found_the_outage(
    node: Node, restartable_server: PrivateRedis
) -> None:
    restartable_server.pause()
    other = StoreOutage(node.place, 60.0)
    timer = threading.Timer(0.3, other.note, ["no answer, says another"])
    timer.start()
    ledger = node.process(wait_budget_s=60.0)
    assert isinstance(ledger.reserve_count(job(1), 1, node.seen()), GrantedGpus)
    timer.join()
    assert ledger.without_store == "no answer, says another"
    # It found nothing out itself.
    assert node.told == []


def test_the_store_is_asked_again_after_a_time_and_hears_all(
    node: Node, restartable_server: PrivateRedis
) -> None:
    restartable_server.kill()
    node.process().reserve_count(job(1), 2, node.seen())
    restartable_server.start()
    ledger = node.process(life_s=0.0)
    (view,) = ledger.read_nodes([node.name])
    assert {one.claim.owner for one in view.reservations.values()} == {job(1).owner}
    assert node.told[-1] == f"event=store-back node={node.name}"
    (view,) = node.open_store().read_nodes([node.name])
    assert view.reservations.keys() == {uuid(0), uuid(1)}


def test_where_the_node_may_not_decide_the_error_comes_through(
    node: Node, restartable_server: PrivateRedis
) -> None:
    restartable_server.kill()
    ledger = node.process(local=False)
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot reach"):
            ledger.reserve_count(job(1), 1, node.seen())
    assert node.opened == 2
    # For people: they see that the store is away.
    assert (node.place / "store-outage").exists()
    restartable_server.start()
    assert ledger.reserve_count(job(1), 1, node.seen()) == GrantedGpus((uuid(0),))


def test_two_grants_of_a_store_that_forgot_one_are_not_both_kept(node: Node) -> None:
    first, second = node.process(), node.process()
    second.read_nodes([node.name])
    assert first.reserve_given(job(1), [uuid(0)], node.seen()) == GrantedGpus((uuid(0),))
    store = node.open_store()
    store.release(node.name, job(1).owner, "lost")
    answer = second.reserve_given(job(2), [uuid(0)], node.seen())
    assert isinstance(answer, BlockedGpu)
    assert answer.why == "reserved" and answer.holder and answer.holder.claim == job(1)
    (view,) = store.read_nodes([node.name])
    assert {gpu: one.claim.owner for gpu, one in view.reservations.items()} == {
        uuid(0): job(1).owner
    }


def test_a_job_that_is_gone_is_dropped_and_not_brought_back(node: Node) -> None:
    node.process().reserve_given(job(1), [uuid(0)], node.seen())
    node.open_store().release(node.name, job(1).owner, "owner gone")
    gone: list[str] = []

    def is_gone(claim: Claim) -> bool:
        gone.append(claim.owner)
        return True

    ledger = node.process(is_gone=is_gone)
    assert ledger.reserve_given(job(2), [uuid(0)], node.seen()) == GrantedGpus((uuid(0),))
    assert gone == [job(1).owner]
    assert any(line.startswith("event=dropped") for line in node.told)


def test_a_story_without_the_store_is_told_later(
    node: Node, restartable_server: PrivateRedis
) -> None:
    restartable_server.kill()
    node.process().record_note(JournalEntry(HEALTH, 0.0, reason="all is well", facts={"took_s": 1}))
    restartable_server.start()
    node.process(life_s=0.0).read_nodes([node.name])
    (event,) = node.open_store().history(node.name, 0.0)
    assert (event.kind, event.reason, event.facts) == (HEALTH, "all is well", {"took_s": 1})


def test_a_story_that_cannot_be_told_hurts_nobody(node: Node) -> None:
    (node.place / "journal").mkdir()
    node.process().record_note(JournalEntry(HEALTH, 0.0, reason="all is well"))
    assert any(line.startswith("event=not-in-history") for line in node.told)


def test_a_url_that_is_none_is_no_outage(node: Node) -> None:
    node.url = "redis://:secret@/x"
    with pytest.raises(ConfigError):
        node.process().read_nodes([node.name])
    assert not (node.place / "store-outage").exists()


def test_addresses_are_waited_for_no_longer_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def slow(host: str, port: object) -> None:
        asked.append(host)
        time.sleep(5)

    monkeypatch.setattr(name_resolution.socket, "getaddrinfo", slow)
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"no answer from the resolver for head within 0\.1 s"):
        resolve_hosts("redis://:secret@head:6379/0", 0.1)
    assert time.monotonic() - began < 4
    for url in ("embedded", "unix:///run/redis.sock", "redis://127.0.0.1/0", "redis://[::1]:1/0"):
        resolve_hosts(url, 0.1)
    assert asked == ["head"]


def test_a_name_without_an_address_is_for_the_client_to_explain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(host: str, port: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(name_resolution.socket, "getaddrinfo", unknown)
    resolve_hosts("redis+sentinel://a,b/mymaster", 1.0)


def test_a_job_that_was_over_takes_from_nobody_however_long_the_journal(
    node: Node, restartable_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    from canhazgpu.ledger.local import reconcile

    monkeypatch.setattr(reconcile, "MAX_BATCH", 1)
    restartable_server.kill()
    ledger = node.process()
    ledger.reserve_given(job(1), [uuid(0)], node.seen())
    ledger.release(node.name, job(1).owner, "job ended")
    ledger.reserve_given(job(2), [uuid(1)], node.seen())
    restartable_server.start()
    run = Claim("run:a", "run", "eve", 1002)
    store = node.open_store()
    assert isinstance(store.reserve_given(run, [uuid(0)], node.seen()), GrantedGpus)
    node.process(life_s=0.0).read_nodes([node.name])
    (view,) = store.read_nodes([node.name])
    assert {gpu: one.claim.owner for gpu, one in view.reservations.items()} == {
        uuid(0): "run:a",
        uuid(1): job(2).owner,
    }


def test_an_intent_is_in_the_book_when_it_is_told_and_the_store_does_not_know_it(
    node: Node,
) -> None:
    seen: list[tuple[Any, Any]] = []

    def look() -> None:
        (intent,) = json.loads((node.place / "book.json").read_text())["intents"]
        (view,) = node.open_store().read_nodes([node.name])
        seen.append((intent["gpus"], view.all_reservations()))

    options = GrantOptions(on_intent=look)
    ledger = node.process()
    assert ledger.reserve_count(job(1), 1, node.seen(), options) == GrantedGpus((uuid(0),))
    assert ledger.reserve_given(job(2), [uuid(1)], node.seen(), options) == GrantedGpus((uuid(1),))
    assert [gpus for gpus, _ in seen] == [[uuid(0)], [uuid(1)]]
    assert [one.gpu for _, held in seen for one in held] == [uuid(0)]
