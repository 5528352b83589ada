"""What a node counts, in the store, for the page's metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hosts.hook_node import NODE, HookNode
from hosts.running_agent import RunningAgent
from ledger_samples import observation
from polling import poll_until
from servers.private_redis import PrivateRedis
from servers.store_users import add_store_users, url_of_user

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import InputError, StoreError
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import node_keys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.store.totals.counters import MAX_LENGTH, NodeCounters
from canhazgpu.metrics.counts import HistoryCounts, published_counts

pytestmark = pytest.mark.slow
CHECK = ("-m", "canhazgpu.epilog.health_check", "--exit-code")


def read(url: str) -> dict[str, str]:
    return {
        node: text
        for page in NodeCounters(StoreConfig(url=url), Role.READ).read()
        for node, text in page.items()
    }


def counted(node: HookNode) -> HistoryCounts | None:
    text = read(node.server.url).get(NODE)
    return None if text is None else published_counts(text)


def check(node: HookNode) -> None:
    done = node.python(*CHECK)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_health_check_publishes_what_it_counts_without_a_file(node: HookNode) -> None:
    node.configure(metrics={"publish": "counters"})
    check(node)
    node.run("prolog")
    node.run("epilog")
    check(node)
    check(node)
    found = counted(node)
    assert found is not None
    assert found.numbers["grants", "job"] == 1
    assert found.numbers["released_gpus", "job"] == 2
    assert sum(n for key, n in found.numbers.items() if key[:2] == ("hook_duration", "epilog")) == 1
    assert found.seconds["prolog"] > 0


def test_counters_that_the_store_lost_are_there_after_the_next_check(node: HookNode) -> None:
    node.configure(metrics={"publish": "counters"})
    check(node)
    node.run("prolog")
    check(node)
    with node.server.client() as client:
        client.delete(node_keys(NODE).usage)
    check(node)
    found = counted(node)
    assert found is not None
    assert found.numbers["grants", "job"] == 1


def test_without_the_key_nothing_is_published(node: HookNode, textfile: Path) -> None:
    check(node)
    node.run("prolog")
    check(node)
    assert textfile.exists()
    assert read(node.server.url) == {}


def test_the_files_counters_are_those_of_the_store(node: HookNode, textfile: Path) -> None:
    node.configure(metrics={"textfile": str(textfile), "publish": "counters"})
    check(node)
    node.run("prolog")
    check(node)
    assert 'canhazgpu_grants_total{node="n1",type="job"} 1.0' in textfile.read_text()
    found = counted(node)
    assert found is not None
    assert found.numbers["grants", "job"] == 1


def test_a_store_that_is_away_fails_nothing(node: HookNode) -> None:
    node.configure(metrics={"publish": "counters"}, store={"timeout_s": 0.5})
    check(node)
    node.server.stop()
    done = node.python(*CHECK)
    assert done.returncode == 4
    assert "metrics" not in done.stderr


def test_the_agent_publishes(node: HookNode, tmp_path: Path) -> None:
    check(node)
    metrics = {"publish": "counters"}
    with RunningAgent(tmp_path / "agent", NODE, store={"url": node.server.url}, metrics=metrics):
        assert poll_until(lambda: counted(node) is not None)


@pytest.fixture
def users() -> PrivateRedis:
    return PrivateRedis(tcp=True)


def test_a_node_publishes_its_own_counters_alone(users: PrivateRedis) -> None:
    with users as server, server.client() as direct:
        add_store_users(direct, ["n1", "n2"])
        for name in ("n1", "n2"):
            url = url_of_user(server, "node", name)
            RedisLedger(StoreConfig(url=url), Role.WRITE).publish_scan(observation(name))
        mine = NodeCounters(StoreConfig(url=url_of_user(server, "node", "n1")), Role.WRITE)
        mine.publish("n1", "{}")
        with pytest.raises(StoreError):
            mine.publish("n2", "{}")
        with pytest.raises(InputError):
            mine.publish("n1}:x{", "{}")
        reader = url_of_user(server, "reader", "")
        assert read(reader) == {"n1": "{}"}
        with pytest.raises(StoreError):
            NodeCounters(StoreConfig(url=reader), Role.READ).publish("n1", "{}")


def test_what_another_program_put_there_is_left_out(users: PrivateRedis) -> None:
    with users as server, server.client() as direct:
        ledger = RedisLedger(StoreConfig(url=server.url), Role.WRITE)
        for name in ("a", "b", "c", "d", "e"):
            ledger.publish_scan(observation(name))
        direct.hset(node_keys("a").usage, "counters", "x" * (MAX_LENGTH + 1))
        direct.delete(node_keys("b").usage)
        direct.set(node_keys("b").usage, "no hash")
        direct.hset(node_keys("c").usage, "counters", "")
        direct.hset(node_keys("d").usage, "counters", json.dumps(HistoryCounts().to_dict()))
        assert set(read(server.url)) == {"c", "d"}
