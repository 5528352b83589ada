"""The journal reaches the store without any hook, whatever becomes of the agent's processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hosts.running_agent import RunningAgent, is_alive
from ledger_samples import observation
from polling import poll_until
from servers.private_redis import PrivateRedis, any_binary

from canhazgpu.agent.watcher import journal_delivery
from canhazgpu.agent.watcher.journal_delivery import (
    FIRST_WAIT_S,
    Delivery,
    JournalDelivery,
    deliver,
)
from canhazgpu.config.schema import Config, NodeConfig, StoreConfig
from canhazgpu.errors import ConfigError
from canhazgpu.ledger.journal_entries import GRANT, RELEASE, JournalEntry
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.journal import pending_entries
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import StoreOutage, read_outage
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim
from canhazgpu.node.identity import NodeIdentity, boot_id

pytestmark = pytest.mark.slow
NODE = "n1"
RETRY_S = 1.0


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    if os.geteuid() != 0:
        pytest.skip("only root may run an agent")
    with PrivateRedis(binary=any_binary(), persist=True) as made:
        made.kill()
        yield made


@dataclass
class Node:
    """A node whose hooks find the store away."""

    directory: Path
    server: PrivateRedis

    @property
    def state_dir(self) -> Path:
        return self.directory / "agent-state"

    def agent(self, url: str = "") -> RunningAgent:
        store = {"url": url or self.server.url, "timeout_s": 2.0, "retry_after_s": RETRY_S}
        return RunningAgent(self.directory, NODE, store=store)

    def journal(self, number: int, *gpus: str) -> None:
        """What a hook does without the store."""
        owner = f"job:c1:{number}:0"
        claim = Claim(owner, "slurm", "ann", 1000, str(number), boot_id=boot_id())
        book = BookFile(self.state_dir, NODE, boot_id(), JobRecords(self.state_dir), print)
        with book.open() as transaction:
            transaction.apply_and_journal(
                JournalEntry(GRANT, transaction.now, owner, gpus, claim)
                if gpus
                else JournalEntry(RELEASE, transaction.now, owner, reason="job ended")
            )
        StoreOutage(self.state_dir, 60.0).note("down")

    def pending(self) -> int:
        return len(pending_entries(self.state_dir, NODE))

    def in_store(self) -> dict[str, str]:
        ledger = RedisLedger(StoreConfig(url=self.server.url), Role.READ)
        (view,) = ledger.read_nodes([NODE])
        return {gpu: one.claim.owner for gpu, one in view.reservations.items()}

    def grants_in_history(self) -> list[str]:
        ledger = RedisLedger(StoreConfig(url=self.server.url), Role.READ)
        events = ledger.history(NODE, 0.0)
        return [one.claim.owner for one in events if one.kind == GRANT and one.claim is not None]


@pytest.fixture
def node(tmp_path: Path, server: PrivateRedis) -> Node:
    return Node(tmp_path / "node", server)


def test_it_is_delivered_when_the_store_is_back(node: Node) -> None:
    with node.agent() as agent:
        node.journal(1, "GPU-a")
        agent.helper()
        node.journal(2, "GPU-b")
        assert node.pending() == 2
        node.server.start()
        poll_until(lambda: node.pending() == 0)
        assert node.in_store() == {"GPU-a": "job:c1:1:0", "GPU-b": "job:c1:2:0"}
        # And the outage is over for hooks and people.
        poll_until(lambda: read_outage(node.state_dir) is None)
        published = json.loads((node.state_dir / "published.json").read_text())
        assert published["store_away_since"] is None
        # With nothing left to do there is no process.
        poll_until(lambda: agent.children() == [])
        assert agent.status()["faults"] == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_watcher_that_is_killed_or_stopped_is_followed_by_another(
    node: Node, number: signal.Signals
) -> None:
    with node.agent() as agent:
        node.journal(1, "GPU-a")
        first = agent.helper()
        os.kill(first, number)
        poll_until(lambda: not is_alive(first))
        assert agent.helper() != first
        node.server.start()
        poll_until(lambda: node.pending() == 0)
        assert node.in_store() == {"GPU-a": "job:c1:1:0"}
        assert f"the watcher (PID {first}) ended" in agent.status()["faults"][0]["text"]


def test_what_an_agent_leaves_the_next_one_delivers(node: Node) -> None:
    with node.agent() as agent:
        node.journal(1, "GPU-a")
        first = agent.helper()
        agent.process.kill()
        agent.process.wait()
        # It does not outlive its agent.
        poll_until(lambda: not is_alive(first))
    with node.agent():
        node.server.start()
        poll_until(lambda: node.pending() == 0)
    assert node.in_store() == {"GPU-a": "job:c1:1:0"}


def test_two_at_once_deliver_each_entry_once(node: Node) -> None:
    """Of an agent that was killed and of the next one, or one of them and a hook."""
    with node.agent():
        pass
    for number in range(20):
        node.journal(number, f"GPU-{number}")
    node.server.start()
    config = Config(
        store=StoreConfig(url=node.server.url),
        node=NodeConfig(
            state_dir=str(node.state_dir), marker_dir=str(node.directory / "agent-lib")
        ),
    )
    started = threading.Barrier(3)

    def deliver_all() -> None:
        started.wait()
        while deliver(NODE, {}, lambda: config).entries:
            pass

    threads = [threading.Thread(target=deliver_all) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert node.pending() == 0
    assert sorted(node.grants_in_history()) == sorted(f"job:c1:{n}:0" for n in range(20))


@contextlib.contextmanager
def babbling(answer: bytes) -> Iterator[tuple[str, Callable[[], int]]]:
    """A server that answers everything with this; gives its URL, and how often it was asked."""
    asked = 0
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            nonlocal asked
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    asked += 1
                    with connection, contextlib.suppress(OSError):
                        connection.recv(4096)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0", lambda: asked
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff\xfe\r\n", b"+OK\r\n" * 50, b"*1000000\r\n:", b""],
    ids=["http", "bytes", "ok", "cut", "nothing"],
)
def test_a_server_that_talks_nonsense_gets_nothing_and_keeps_nothing(
    node: Node, answer: bytes
) -> None:
    with babbling(answer) as (url, asked), node.agent(url) as agent:
        node.journal(1, "GPU-a")
        first = agent.helper()
        poll_until(lambda: asked() >= 3)
        assert node.pending() == 1
        assert is_alive(first)
        assert agent.status()["faults"] == []
        # The administrator mends the configuration; the agent is not started anew.
        node.server.start()
        config = node.directory / "agent.toml"
        config.write_text(config.read_text().replace(url, node.server.url))
        poll_until(lambda: node.pending() == 0)
    assert node.in_store() == {"GPU-a": "job:c1:1:0"}


def test_a_release_that_waits_is_delivered_too(node: Node) -> None:
    node.server.start()
    with node.agent():
        node.journal(1, "GPU-a")
        poll_until(lambda: node.pending() == 0)
        assert node.in_store() == {"GPU-a": "job:c1:1:0"}
        node.journal(1)
        poll_until(lambda: node.pending() == 0)
        assert node.in_store() == {}


def test_nothing_goes_to_a_node_of_another_cluster_with_the_same_name(
    node: Node, tmp_path: Path
) -> None:
    with node.agent():
        pass
    node.journal(1, "GPU-a")
    node.server.start()
    store = StoreConfig(url=node.server.url)
    other = NodeIdentity(NODE, "other", "another machine", "host")
    RedisLedger(store, Role.WRITE, identity=other).publish_scan(observation(NODE))
    conf = tmp_path / "slurm.conf"
    conf.write_text("ClusterName=own\n")
    config = Config(
        store=store,
        node=NodeConfig(state_dir=str(node.state_dir), marker_dir=str(tmp_path / "lib")),
    )
    done = deliver(NODE, {"SLURM_CONF": str(conf)}, lambda: config)
    assert done.entries == 0
    assert "other" in done.failure
    assert node.pending() == 1
    assert node.in_store() == {}


def fail() -> Config:
    raise ConfigError("it cannot be read")


def test_it_tries_ever_more_rarely_and_tells_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with node.agent():
        pass
    node.journal(1, "GPU-a")
    told: list[str] = []
    monkeypatch.setattr(journal_delivery, "write_syslog", lambda line, *_: told.append(line))
    now = 0.0
    delivery = JournalDelivery(NODE, node.state_dir, lambda: deliver(NODE, {}, fail), lambda: now)
    waits = []
    for _ in range(8):
        delivery.step(set())
        while delivery.is_trying:
            delivery.step(set())
        waits.append(delivery.wait_s())
        now += waits[-1] or 0.0
    longest_s = StoreConfig().retry_after_s
    assert waits == [min(FIRST_WAIT_S * 2**tries, longest_s) for tries in range(8)]
    assert waits[-1] == longest_s
    assert not delivery.is_done
    (line,) = told
    assert "event=journal-waits" in line and "it cannot be read" in line


def test_lines_that_nobody_can_read_are_looked_at_ever_more_rarely(node: Node) -> None:
    with node.agent():
        pass
    node.journal(1, "GPU-a")
    journal = node.state_dir / "journal"
    head, _, _ = journal.read_bytes().partition(b"\n")
    journal.write_bytes(head + b"\ngarbage\n")
    now = 0.0
    delivery = JournalDelivery(NODE, node.state_dir, lambda: Delivery(node.pending()), lambda: now)
    waits = []
    for _ in range(3):
        delivery.step(set())
        while delivery.is_trying:
            delivery.step(set())
        waits.append(delivery.wait_s())
        now += waits[-1] or 0.0
    assert waits == [FIRST_WAIT_S, FIRST_WAIT_S * 2, FIRST_WAIT_S * 4]


def test_with_an_empty_journal_there_is_nothing_to_do(tmp_path: Path) -> None:
    config = Config(
        store=StoreConfig(url="redis://127.0.0.1:1/0"),
        node=NodeConfig(state_dir=str(tmp_path), marker_dir=str(tmp_path / "lib")),
    )
    assert deliver(NODE, {}, lambda: config) == Delivery(0)
    delivery = JournalDelivery(NODE, tmp_path, lambda: deliver(NODE, {}, fail))
    delivery.step(set())
    assert delivery.is_done
    assert delivery.wait_s() is None
