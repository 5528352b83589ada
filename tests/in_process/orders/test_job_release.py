"""`admin release --job`: what a job holds on all its nodes, each of which does it itself."""

from __future__ import annotations

import pytest
from ledger_samples import gpus, job, observation, uuid

from canhazgpu.errors import InputError, UnavailableError
from canhazgpu.in_process.orders import give_order
from canhazgpu.in_process.orders.carry_out import take_and_carry_out
from canhazgpu.in_process.service import InProcessService
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import jobs_index_key, order_keys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.node.users import Caller
from canhazgpu.service.holdings import ReleaseAnswer, RevokeRequest

from .conftest import AGENT, ALICE, ROOT, Shown, Site

pytestmark = pytest.mark.slow
OTHER = "n2"
REQUEST = RevokeRequest("lost", job_id="4711")


class Cluster:
    """Two nodes with agents; the job 4711 is on both, another one beside it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        for node in ("n1", OTHER):
            ledger = self.ledger(node)
            ledger.reserve_given(job(4711), gpus(0, 1), observation(node))
            ledger.reserve_given(job(4712), gpus(2), observation(node))
            ledger.keep_indexes(node)
            self.carry_out(node)

    def ledger(self, node: str) -> RedisLedger:
        return RedisLedger(self.site.store("node", node), Role.WRITE)

    def carry_out(self, node: str) -> None:
        adapters = self.site.adapters(ROOT, self.site.store("node", node), node)
        take_and_carry_out(node, adapters, AGENT)

    def held(self, node: str) -> set[str]:
        (view,) = self.ledger(node).read_nodes([node])
        return set(view.reservations)

    def revoke(self, *answering: str, caller: Caller = ROOT) -> tuple[ReleaseAnswer, ...]:
        """Ask from a login host; these nodes carry out what they are ordered."""

        class Carrying(Shown):
            def show(_, text: str, steady: str) -> None:
                for node in answering:
                    self.carry_out(node)

        service = InProcessService(self.site.adapters(caller, self.site.store("order"), "login1"))
        return service.revoke_job(REQUEST, Carrying())


@pytest.fixture
def cluster(site: Site) -> Cluster:
    return Cluster(site)


def test_all_nodes_of_the_job_release_it_and_nothing_else(cluster: Cluster) -> None:
    answers = cluster.revoke("n1", OTHER)

    assert [(one.node, one.fault) for one in answers] == [("n1", None), (OTHER, None)]
    assert [one.released[0].gpus for one in answers] == [gpus(0, 1), gpus(0, 1)]
    assert cluster.held("n1") == cluster.held(OTHER) == {uuid(2)}
    events = cluster.ledger(OTHER).history(OTHER, 0.0)
    assert [one.by for one in events if one.kind == "release"] == [f"root@{give_order._host()}"] * 2


def test_all_are_ordered_before_the_first_is_waited_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(give_order, "AGENT_WAIT_S", 2.0)
    answers = cluster.revoke(OTHER)

    # The first does not answer, and keeps nobody from it.
    assert [one.node for one in answers] == ["n1", OTHER]
    assert isinstance(answers[0].fault, UnavailableError)
    assert (answers[1].fault, cluster.held(OTHER)) == (None, {uuid(2)})
    assert cluster.held("n1") == {uuid(0), uuid(1), uuid(2)}


def test_a_false_hint_orders_nothing(cluster: Cluster) -> None:
    cluster.ledger(OTHER).release(OTHER, job(4711).owner, "ended")
    with cluster.site.server.client() as client:
        assert any("n2" in one for one in client.smembers(jobs_index_key(4711)))
        answers = cluster.revoke("n1")
        assert client.exists(order_keys(OTHER).orders) == 0

    assert [one.node for one in answers] == ["n1"]


def test_nobody_else_may(cluster: Cluster) -> None:
    with pytest.raises(InputError):
        cluster.revoke(caller=ALICE)

    assert len(cluster.held("n1")) == 3


def test_on_the_node_itself_it_is_done_at_once(cluster: Cluster) -> None:
    site = cluster.site
    service = InProcessService(site.adapters(ROOT, site.store("admin"), "n1"))

    class Carrying(Shown):
        def show(_, text: str, steady: str) -> None:
            cluster.carry_out(OTHER)

    assert [one.node for one in service.revoke_job(REQUEST, Carrying())] == ["n1", OTHER]
    assert cluster.held("n1") == cluster.held(OTHER) == {uuid(2)}


def test_a_job_that_holds_nothing(cluster: Cluster) -> None:
    service = InProcessService(cluster.site.adapters(ROOT, cluster.site.store("order"), "login1"))

    assert service.revoke_job(RevokeRequest("x", job_id="99"), Shown()) == ()
