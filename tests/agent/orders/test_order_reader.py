"""The agent carries orders out as they come, whatever becomes of its processes and the store."""

from __future__ import annotations

import os
import pwd
import secrets
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hosts.running_agent import RunningAgent, is_alive
from ledger_samples import gpus, observation
from polling import poll_until
from servers.private_redis import PrivateRedis, any_binary

from canhazgpu.agent.orders.order_reader import FIRST_RETRY_S, read_orders
from canhazgpu.agent.respawned_process import RespawnedProcess
from canhazgpu.allocation.progress import NO_PROGRESS
from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import InputError, StoreError, UnavailableError
from canhazgpu.in_process.orders.give_order import OrderCommand
from canhazgpu.ledger.grant_answers import GrantedGpus
from canhazgpu.ledger.orders import OrderReaderKind, look_interval_s
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.store.orders import OrderStore
from canhazgpu.ledger.values import Claim
from canhazgpu.node.users import Caller
from canhazgpu.service.holdings import ReleaseAnswer, ReleaseRequest

pytestmark = pytest.mark.slow

NODE = "n1"
ALICE = pwd.getpwnam("nobody")
AWAIT = {"orders": "await"}


@dataclass
class Node:
    """A node with an agent, and a store that keeps its data."""

    directory: Path
    server: PrivateRedis

    @property
    def config(self) -> StoreConfig:
        return StoreConfig(url=self.server.url, timeout_s=5.0)

    @property
    def orders(self) -> OrderStore:
        return OrderStore(self.config, Role.WRITE)

    def agent(self, changes: str = "", **agent: object) -> RunningAgent:
        store = {"url": self.server.url, "timeout_s": 2.0, "retry_after_s": 1.0}
        return RunningAgent(self.directory, NODE, changes, store=store, agent={**AWAIT, **agent})

    def reserve(self, index: int) -> None:
        claim = Claim(f"manual:{index}", "manual", ALICE.pw_name, ALICE.pw_uid, duration_s=600.0)
        ledger = RedisLedger(self.config, Role.WRITE)
        answer = ledger.reserve_given(claim, gpus(index), observation(NODE))
        assert isinstance(answer, GrantedGpus)

    @property
    def held(self) -> set[str]:
        (view,) = RedisLedger(self.config, Role.READ).read_nodes([NODE])
        return set(view.reservations)

    def order_release(self) -> ReleaseAnswer:
        poll_until(lambda: self.orders.reader(NODE) is not None)
        command = OrderCommand(self.orders, NODE, secrets.token_hex(16), NO_PROGRESS)
        caller = Caller(ALICE.pw_uid, ALICE.pw_name)
        return command.carry_out(ReleaseRequest(), caller, ReleaseAnswer)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    if os.geteuid() != 0:
        pytest.skip("only root may run an agent")
    with PrivateRedis(binary=any_binary(), persist=True) as server:
        yield Node(tmp_path, server)


def reader_pid(agent: RunningAgent) -> int:
    """The process that waits for orders, once there is one."""
    agent.spare_handler()  # else it could be taken for the reader until it waits
    return poll_until(lambda: next(iter(agent.children()), 0))


@pytest.mark.parametrize("how", ["look", "await"])
def test_orders_are_carried_out_one_after_another(node: Node, how: str) -> None:
    with node.agent(orders=how) as agent:
        for index in (0, 1, 2):
            node.reserve(index)
            assert [one.gpus for one in node.order_release().released] == [gpus(index)]
            assert node.held == set()
        assert agent.status()["faults"] == []
    found = node.orders.reader(NODE)
    assert found is not None and found.kind is OrderReaderKind.AGENT


def test_what_was_ordered_before_the_agent_is_carried_out(node: Node) -> None:
    node.reserve(0)
    node.orders.take(NODE, OrderReaderKind.CHECK)
    answers: list[ReleaseAnswer] = []
    ordering = threading.Thread(target=lambda: answers.append(node.order_release()))
    ordering.start()
    try:
        with node.agent():
            ordering.join(60)
    finally:
        ordering.join(60)

    assert [len(one.released) for one in answers] == [1]
    assert node.held == set()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_another_reader_takes_the_place_of_one_that_was_killed_or_stopped(
    node: Node, how: signal.Signals
) -> None:
    node.reserve(0)
    with node.agent() as agent:
        first = reader_pid(agent)
        os.kill(first, how)
        poll_until(lambda: not is_alive(first))

        assert len(node.order_release().released) == 1

        faults = [one["text"] for one in agent.status()["faults"]]
    assert faults == [f"the order reader (PID {first}) ended with -9"]


def test_the_reader_ends_with_its_agent(node: Node) -> None:
    with node.agent() as agent:
        reader = reader_pid(agent)
        agent.process.kill()
        poll_until(lambda: not is_alive(reader))


def test_a_store_that_comes_back_is_waited_at_again(node: Node) -> None:
    with node.agent() as agent:
        node.reserve(0)
        assert len(node.order_release().released) == 1
        node.server.kill()
        node.server.start()
        node.reserve(1)

        assert len(node.order_release().released) == 1
        assert agent.status()["faults"] == []


def test_a_node_that_does_nothing_holds_no_connection(node: Node) -> None:
    with node.agent(orders="look") as agent, node.server.client() as direct:
        node.reserve(0)
        assert len(node.order_release().released) == 1
        reader_pid(agent)
        looks = direct.info("commandstats")["cmdstat_llen"]["calls"]

        def looked_since_and_hung_up() -> bool:
            stats = direct.info("commandstats")
            return stats["cmdstat_llen"]["calls"] > looks + 2 and len(direct.client_list()) == 1

        poll_until(looked_since_and_hung_up)


def test_one_that_waits_holds_one(node: Node) -> None:
    with node.agent(orders="await") as agent, node.server.client() as direct:
        reader_pid(agent)
        poll_until(lambda: any(one["cmd"] == "blmove" for one in direct.client_list()))
        assert len(direct.client_list()) == 2


@pytest.mark.parametrize(
    ("nodes", "with_tls", "expected"),
    [
        (1, False, 2.0),
        (1000, False, 2.0),
        (10_000, False, 20.0),
        (10**6, False, 30.0),
        (100, True, 2.0),
        (1000, True, 20.0),
    ],
)
def test_all_nodes_together_look_so_often(nodes: int, with_tls: bool, expected: float) -> None:
    assert look_interval_s(nodes, with_tls=with_tls) == expected


def test_where_the_check_takes_orders_the_agent_waits_for_none(node: Node) -> None:
    with node.agent(orders="check") as agent:
        agent.spare_handler()

        assert agent.children() == []
        assert node.orders.reader(NODE) is None


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
def test_one_that_dies_or_stops_halfway_is_told_and_the_next_order_is_carried_out(
    node: Node, tmp_path: Path, how: str
) -> None:
    """The first order's process is killed or stopped as it begins, and the second one's is not."""
    once = tmp_path / "once"
    once.touch()
    changes = f"""
import os, signal
import canhazgpu.in_process.orders.carry_out as module
unchanged = module._carry_out
def carry_out(*given):
    if os.path.exists({str(once)!r}):
        os.unlink({str(once)!r})
        os.kill(os.getpid(), signal.{how})
    return unchanged(*given)
module._carry_out = carry_out
"""
    node.reserve(0)
    with node.agent(changes=changes):
        with pytest.raises(UnavailableError, match="was interrupted"):
            node.order_release()
        assert node.held == {"GPU-0"}

        assert len(node.order_release().released) == 1


def test_garbage_ends_nothing(node: Node) -> None:
    from canhazgpu.ledger.store.keys import order_keys

    with node.agent() as agent, node.server.client() as direct:
        direct.rpush(order_keys(NODE).orders, "x", b"\xff\0", f"{'a' * 32} [[[", f"{'b' * 32} {{}}")
        node.reserve(0)

        assert len(node.order_release().released) == 1
        assert agent.status()["faults"] == []
        assert '"error"' in str(direct.hget(order_keys(NODE).order_answers, "b" * 32))


def test_what_fails_is_told_once_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from canhazgpu.agent.orders import order_reader

    told: list[str] = []
    monkeypatch.setattr(order_reader, "write_syslog", told.append)
    away, other = StoreError("away"), InputError("other")
    outcomes: list[object] = [away, away, False, away, other, ValueError("x"), True]
    waits: list[float] = []

    def try_once() -> bool:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return bool(outcome)

    read_orders(NODE, try_once, waits.append, longest_retry_s=1.5)

    assert waits == [FIRST_RETRY_S, 1.0, FIRST_RETRY_S, 1.0, 1.5]
    assert [text.partition("reason=")[2][:7] for text in told] == [
        '"away (', '"away (', "other", '"intern',
    ]  # fmt: skip


def test_one_that_cannot_be_started_rests() -> None:
    now = [100.0]

    def run(_agent: int) -> None:
        raise ValueError

    starter = RespawnedProcess("order reader", run, lambda: now[0])
    assert starter.is_needed()
    starter.start()
    assert (starter.is_needed(), starter.wait_s) == (False, None)

    fault = poll_until(starter.reap)

    assert "order reader" in fault and "ended with 1" in fault
    assert not starter.is_needed() and (starter.wait_s or 0) > 0
    now[0] += 10
    assert starter.is_needed()
