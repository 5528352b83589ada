"""The indexes and what was counted, compared with the nodes' own records; repaired and trimmed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from io import StringIO

import pytest
from ledger_samples import gpus, job, observation, run, wait_for_next_ms, waiter
from servers.private_redis import PrivateRedis
from servers.store_users import add_store_users, url_of_user

from canhazgpu.cli.terminal.wait_progress import WaitProgress
from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import InputError, StoreError
from canhazgpu.in_process.adapters import Adapters
from canhazgpu.in_process.service import InProcessService
from canhazgpu.ledger.journal_entries import EPILOG, JournalEntry, NumberedEntry
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import jobs_index_key, node_keys, user_index_key
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.store.totals.comparison import usage_problem
from canhazgpu.node.users import ADMINISTRATORS_RIGHTS, EVERYBODYS_RIGHTS, Caller
from canhazgpu.service.index import IndexAnswer, IndexRequest, IndexTask

pytestmark = pytest.mark.slow
NODES = ("n1", "n2")
ROOT = Caller(0, "root", ADMINISTRATORS_RIGHTS)


class Site:
    """Two nodes with logins of their own, on which jobs ran, run and wait."""

    def __init__(self, server: PrivateRedis) -> None:
        self.server = server
        for node in NODES:
            ledger = RedisLedger(StoreConfig(url=url_of_user(server, "node", node)), Role.WRITE)
            ledger.reserve_given(job(4711), gpus(0, 1), observation(node))
            ledger.release(node, job(4711).owner, "ended")
            wait_for_next_ms()
            ledger.reserve_given(job(4712), gpus(0), observation(node))
            ledger.join_queue(node, waiter(run(1)))
            ledger.keep_indexes(node)
        with server.client() as client:
            self.day = client.time()[0] // 86400

    def ask(
        self, task: IndexTask, *nodes: str, role: str = "admin", caller: Caller = ROOT
    ) -> IndexAnswer:
        url = url_of_user(self.server, role, "n1" if role == "node" else "")
        adapters = Adapters({"CANHAZGPU_STORE_URL": url}, caller=lambda: caller)
        return InProcessService(adapters).indexes(IndexRequest(task, nodes))

    def usage(self, node: str) -> dict[str, list[int]]:
        with self.server.client() as client:
            total: dict[str, list[int]] = json.loads(client.hget(node_keys(node).usage, "total"))
        return total


@pytest.fixture
def site() -> Iterator[Site]:
    with PrivateRedis(tcp=True) as server, server.client() as direct:
        add_store_users(direct, list(NODES))
        yield Site(server)


def test_nothing_differs_of_what_the_nodes_have_told(site: Site) -> None:
    found = site.ask(IndexTask.CHECK)

    assert (found.nodes, found.findings, found.unmarked) == (2, (), ())


def test_who_waits_is_told_how_far_it_is(site: Site) -> None:
    shown = StringIO()
    adapters = Adapters(
        {"CANHAZGPU_STORE_URL": url_of_user(site.server, "admin", "")}, caller=lambda: ROOT
    )
    InProcessService(adapters).indexes(IndexRequest(IndexTask.CHECK), WaitProgress(shown))
    assert shown.getvalue() == "canhazgpu: comparing 2 nodes\n"


def test_what_was_lost_is_named_and_repaired(site: Site) -> None:
    with site.server.client() as client:
        jobs, user = jobs_index_key(4711), user_index_key(1000, site.day)
        assert client.srem(jobs, f"4711 n1 {site.day}") == 1
        assert client.delete(user) == 1
        client.delete(node_keys("n2").indexed)

        found = site.ask(IndexTask.CHECK)
        assert {(one.where, one.detail.split(" lacks")[0]) for one in found.findings} == {
            ("n1", "the index of jobs"), ("n1", "the index of users"), ("n2", "the index of users"),
        }  # fmt: skip
        assert found.unmarked == ("n2",)
        assert not found.is_good
        assert client.sismember(jobs, f"4711 n1 {site.day}") == 0

        only = site.ask(IndexTask.REPAIR, "n1")
        assert (only.nodes, only.is_good) == (1, True)
        assert site.ask(IndexTask.REPAIR).is_good
        assert client.sismember(jobs, f"4711 n1 {site.day}") == 1
        assert client.smembers(user) == set(NODES)
    for _ in range(2):
        again = site.ask(IndexTask.REPAIR)
        assert (again.findings, again.unmarked) == ((), ())


@pytest.mark.parametrize("kind", ["string", "hash", "list", "stream", "zset"])
def test_a_key_of_another_type_is_replaced(site: Site, kind: str) -> None:
    before = site.usage("n1")
    keys = [jobs_index_key(4711), user_index_key(1000, site.day), node_keys("n1").usage]
    commands = {
        "string": ("SET", "x"), "hash": ("HSET", "a", "b"), "list": ("RPUSH", "x"),
        "stream": ("XADD", "*", "a", "b"), "zset": ("ZADD", "1", "x"),
    }  # fmt: skip
    name, *arguments = commands[kind]
    with site.server.client() as client:
        for key in keys[: 2 if kind == "hash" else 3]:
            client.delete(key)
            client.execute_command(name, key, *arguments)
    if kind == "hash":
        with site.server.client() as client:
            client.hset(keys[2], "total", "garbage")
            client.hset(keys[2], str(site.day - 1), "{}")

    found = site.ask(IndexTask.CHECK)
    assert {one.where for one in found.findings} >= {keys[0], keys[1], "n1", "n2"}
    assert site.ask(IndexTask.REPAIR).is_good

    assert site.ask(IndexTask.CHECK).findings == ()
    assert site.usage("n1") == before
    # The node goes on, and is counted once.
    ledger = RedisLedger(StoreConfig(url=url_of_user(site.server, "node", "n1")), Role.WRITE)
    ledger.release("n1", job(4712).owner, "ended")
    assert site.usage("n1")["ann\tjob"][2:] == [2, 2, 2, 2]


def _note_of_use(site: Site, number: int) -> None:
    rows = [["0", 40_000, 80_000, 80], ["1", None, 80_000, None]]
    facts = {"use": {"driver": rows, "held_ms": 30 * 3600_000, "idle_ms": 5000}}
    claim = job(4711)
    note = JournalEntry(EPILOG, time.time() + 60, claim.owner, claim=claim, facts=facts)
    ledger = RedisLedger(StoreConfig(url=url_of_user(site.server, "node", "n1")), Role.WRITE)
    ledger.record_entries("n1", "journal", [NumberedEntry(number, note)])


@pytest.mark.parametrize("text", [None, "garbage", "[1]", '{"ann\tjob": [1, "2"]}'])
def test_what_jobs_made_of_their_gpus_is_counted_anew(site: Site, text: str | None) -> None:
    def total() -> str | None:
        with site.server.client() as client:
            found: str | None = client.hget(node_keys("n1").usage, "use:total")
        return found

    _note_of_use(site, 1)
    before, hours = total(), site.usage("n1")
    assert before is not None
    assert site.ask(IndexTask.CHECK).findings == ()
    with site.server.client() as client:
        if text is None:
            fields = client.hkeys(node_keys("n1").usage)
            client.hdel(node_keys("n1").usage, *[one for one in fields if one[:4] == "use:"])
        else:
            client.hset(node_keys("n1").usage, "use:total", text)

    (found,) = site.ask(IndexTask.CHECK).findings
    assert (found.where, "(what jobs made of their GPUs)" in found.detail) == ("n1", True)
    assert site.ask(IndexTask.REPAIR).is_good

    assert (total(), site.usage("n1")) == (before, hours)
    assert site.ask(IndexTask.CHECK).findings == ()
    # The note that was counted is not counted again, and the next one is.
    _note_of_use(site, 1)
    assert total() == before
    _note_of_use(site, 2)
    assert json.loads(total() or "")["ann\tjob"][3] == 2
    assert site.ask(IndexTask.CHECK).findings == ()


def test_totals_are_compared_by_day() -> None:
    usage = {
        "day": "12", "from": "0-0", "through": "5-0",
        "total": '{"ann\\trun": [9000, 0, 3, 3, 3, 3]}',
        "10": '{"ann\\trun": [1000, 0, 1, 1, 1, 1]}', "11": '{"ann\\trun": [5000, 0, 2, 2, 2, 2]}',
    }  # fmt: skip
    told = {
        10: {},
        11: {"ann\trun": [4000, 0, 1, 1, 1, 1]},
        12: {"ann\trun": [4000, 0, 1, 1, 1, 1]},
    }
    assert usage_problem(usage, told) == ""
    more = {**told, 11: {"ann\trun": [4000, 0, 2, 2, 2, 2]}}
    assert usage_problem(usage, more).endswith("of day 11")
    other = {**told, 12: {**told[12], "bob\trun": [4000, 0, 1, 1, 1, 1]}}
    assert usage_problem(usage, other).endswith("of day 12")
    # What is not counted yet is read from the history, and trimmed histories tell less.
    assert usage_problem({**usage, "from": "9-0"}, other) == ""
    assert usage_problem(usage, {10: {}, 11: {}}) == ""


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"ann\\trun": "x"}', '{"ann\\trun": [1]}']
)
def test_totals_that_are_none_are_named(text: str) -> None:
    usage = {"day": "12", "through": "5-0", "total": text, "11": "{}"}
    told = {11: {}, 12: {"ann\trun": [4000, 0, 1, 1, 1, 1]}}
    assert usage_problem(usage, told)


def test_old_entries_are_removed(site: Site) -> None:
    with site.server.client() as client:
        jobs = jobs_index_key(4711)
        old_user, kept_user = user_index_key(7, site.day - 20), user_index_key(7, site.day - 8)
        for key in (old_user, kept_user):
            client.sadd(key, "n1")
        client.sadd(jobs, f"4711 n1 {site.day - 200}", f"4711 n9 {site.day - 80}", "no hint")
        client.sadd("canhazgpu:index:other", "x")
        members = client.smembers(jobs)

        found = site.ask(IndexTask.TRIM)

        assert (found.removed_keys, found.removed_members) == (2, 2)
        assert client.smembers(jobs) == members - {f"4711 n1 {site.day - 200}", "no hint"}
        assert client.exists(old_user, "canhazgpu:index:other") == 0
        assert client.exists(kept_user) == 1
    assert site.ask(IndexTask.TRIM).removed_members == 0
    assert site.ask(IndexTask.CHECK).findings == ()


@pytest.mark.parametrize("role", ["node", "reader", "order"])
@pytest.mark.parametrize("task", list(IndexTask))
def test_it_takes_the_administrators_login(site: Site, role: str, task: IndexTask) -> None:
    with pytest.raises(StoreError, match="take the administrator's login"):
        site.ask(task, role=role)


def test_people_and_unknown_nodes_are_refused(site: Site) -> None:
    with pytest.raises(InputError):
        site.ask(IndexTask.CHECK, caller=Caller(1000, "ann", EVERYBODYS_RIGHTS))
    with pytest.raises(InputError, match="no node 'n9'"):
        site.ask(IndexTask.CHECK, "n9")
    with pytest.raises(InputError, match="leave --node out"):
        site.ask(IndexTask.TRIM, "n1")
