"""Where no agent runs, the health check carries orders out."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from ledger_samples import uuid

from canhazgpu.agent.socket_files import listen
from canhazgpu.in_process.orders import at_health_check
from canhazgpu.in_process.orders.agent_presence import AGENT_SOCKET
from canhazgpu.in_process.orders.at_health_check import carry_out_at_check
from canhazgpu.ledger.orders import OrderReaderKind
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import order_keys
from canhazgpu.ledger.store.orders import OrderStore
from canhazgpu.node.hook_caller import OwnProcess
from canhazgpu.service.holdings import ReleaseAnswer, ReleaseRequest
from canhazgpu.service.jobs import CheckRequest

from .conftest import ALICE, NODE, Site


class GaveUp(OwnProcess):
    """A hook that does not confirm."""

    def confirms(self, limit_s: float) -> bool:
        return False


def kind_of(site: Site) -> OrderReaderKind | None:
    found = OrderStore(site.store("order"), Role.READ).reader(NODE)
    return found and found.kind


def environment(site: Site) -> Mapping[str, str]:
    return {**site.on_node.environ, "CANHAZGPU_AGENT_ORDERS": "check"}


def test_the_check_carries_out_what_was_ordered(site: Site) -> None:
    site.reserve(ALICE, 0)

    def check(_: float) -> None:
        carry_out_at_check(CheckRequest(environment(site)), in_agent=False)

    answer = site.command(check).carry_out(ReleaseRequest(), ALICE, ReleaseAnswer)

    assert (len(answer.released), site.held) == (1, set())
    assert kind_of(site) is OrderReaderKind.CHECK


def test_a_check_says_whether_the_node_has_an_agent(site: Site) -> None:
    request = CheckRequest(environment(site))
    carry_out_at_check(request, in_agent=False)
    assert kind_of(site) is OrderReaderKind.CHECK
    carry_out_at_check(request, in_agent=True)
    assert kind_of(site) is OrderReaderKind.AGENT
    carry_out_at_check(request, in_agent=False)
    assert kind_of(site) is OrderReaderKind.CHECK
    path = site.directory / NODE / AGENT_SOCKET
    path.parent.mkdir(parents=True)
    with listen(path, 0o666):
        carry_out_at_check(request, in_agent=False)
    assert kind_of(site) is OrderReaderKind.AGENT


def test_where_the_agent_waits_for_orders_the_check_takes_none(site: Site) -> None:
    with site.server.client() as direct:
        direct.rpush(order_keys(NODE).orders, f"{'a' * 32} {{}}")
        request = CheckRequest({**environment(site), "CANHAZGPU_AGENT_ORDERS": "await"})
        carry_out_at_check(request, in_agent=True)
        assert direct.llen(order_keys(NODE).orders) == 1
        carry_out_at_check(request, in_agent=False)

        assert direct.llen(order_keys(NODE).orders) == 0


def test_a_check_that_was_not_confirmed_takes_nothing(site: Site) -> None:
    site.reserve(ALICE, 0)
    with site.server.client() as direct:
        direct.rpush(order_keys(NODE).orders, f"{'a' * 32} {{}}")
        carry_out_at_check(CheckRequest(environment(site), GaveUp()), in_agent=True)

        assert direct.llen(order_keys(NODE).orders) == 1
    assert site.held == {uuid(0)}


@pytest.mark.parametrize(
    "changes",
    [
        {"CANHAZGPU_STORE_URL": "redis://127.0.0.1:1"},
        {"CANHAZGPU_STORE_URL": "nothing"},
        {"CANHAZGPU_CONFIG": "/nowhere"},
        {"CANHAZGPU_NODE_STATE_DIR": "/dev/null/x"},
        {"CANHAZGPU_NODE_NAME": "no name"},
    ],
)
def test_what_fails_is_logged_and_fails_no_check(
    site: Site, changes: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(at_health_check, "write_syslog", told.append)

    carry_out_at_check(CheckRequest({**environment(site), **changes}), in_agent=False)

    assert [text.partition(" ")[0] for text in told] == ["event=orders-not-taken"]
