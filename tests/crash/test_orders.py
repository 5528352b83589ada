"""The reader of orders dies at any of its steps: an order is carried out once, or not at all."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from crashes.crash_agent import CrashAgent, make_crash_agent
from crashes.crash_page import NO_CRASH, Crash
from crashes.exploration import Ended, Scenario, explore
from hosts.hook_node import NODE
from polling import poll_until

from canhazgpu.allocation.progress import NO_PROGRESS
from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import CanhazgpuError
from canhazgpu.in_process.orders.give_order import OrderCommand
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.orders import OrderStore
from canhazgpu.node.users import Caller
from canhazgpu.service.holdings import ReleaseAnswer, ReleaseRequest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SAMPLE = {"kills": 3}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashAgent]:
    with make_crash_agent(tmp_path_factory.mktemp("crash-orders"), "await") as made:
        made.hook("health_check")
        yield made


def begins_anew(node: CrashAgent) -> None:
    """Have another reader of orders begin, whose steps count."""
    for pid in node.agent.children():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    poll_until(lambda: node.page.pid, "the next reader to begin")


def order_release(node: CrashAgent) -> None:
    """Order the release of what root has reserved, and wait for the answer, whatever it is."""
    orders = OrderStore(StoreConfig(url=node.node.server.url, timeout_s=5.0), Role.WRITE)
    poll_until(lambda: orders.reader(NODE) is not None, "somebody to read orders")
    command = OrderCommand(orders, NODE, secrets.token_hex(16), NO_PROGRESS)
    with suppress(CanhazgpuError):
        command.carry_out(ReleaseRequest(), Caller(0, "root"), ReleaseAnswer)


def test_any_point(node: CrashAgent, figures: Callable[[str], None]) -> None:
    assert node.command("reserve", "--gpus", "1", "--duration", "1h").returncode == 0
    node.settled()
    image = node.image()

    def run(crash: Crash | None) -> Ended:
        image.put_back(node.store)
        if crash is not None:
            node.page.set("orders", crash)
            begins_anew(node)
            order_release(node)
        node.hook("health_check")
        state = node.settled()
        steps, is_hit = node.page.taken_steps(), node.page.is_hit
        faults = state.faults()
        # The next order is carried out in any case.
        node.page.set("")
        order_release(node)
        if held := dict(node.settled().held):
            faults.append(f"after the next order {held} is held")
        return Ended(crash or NO_CRASH, steps, is_hit, state, faults)

    found = explore(Scenario("reader of orders", run), SAMPLE)
    figures(str(found))
    assert found.steps > 0
    assert found.faults == [], "\n".join(found.faults)
