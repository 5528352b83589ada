"""What every ledger does for people: the store's, and a node's with the store and without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ledger_samples import (
    gpus,
    job,
    manual,
    new_node_name,
    observation,
    run,
    uuid,
    wait_for_next_ms,
    waiter,
)
from ledgers.hook_ledger import hook_ledger
from plugins.fast_set import first_and_variants
from polling import poll_until
from servers.private_redis import shared_server

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import InputError, StoreError
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus, QueuePosition, TooFewGpus
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.port import GrantOptions, Ledger, Observation
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim, NodeView
from canhazgpu.ledger.wait_budget import WaitBudget
from canhazgpu.node.process_id import ProcessId

QUEUES = GrantOptions(queues=True)
AFFINITY = GrantOptions(affinity=True)
SHORT_S = 0.05


@dataclass
class Node:
    """A node, and what each process of it opens."""

    name: str
    open: Callable[[], Ledger]

    @property
    def ledger(self) -> Ledger:
        return self.open()

    def seen(self, **details: Any) -> Observation:
        wait_for_next_ms()
        return observation(self.name, **details)

    def view(self) -> NodeView:
        (found,) = self.ledger.read_nodes([self.name])
        return found

    def owners(self) -> dict[str, str]:
        return {gpu: one.claim.owner for gpu, one in self.view().reservations.items()}

    def queue(self) -> list[str]:
        return [one.owner for one in self.view().queue]

    def use(self, claim: Claim, *indices: int) -> None:
        """Have GPUs, and give them back."""
        self.ledger.reserve_given(claim, gpus(*indices), self.seen())
        self.ledger.release(self.name, claim.owner, "end")


@pytest.fixture(params=first_and_variants(["node", "store", "node without the store"]))
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    name = new_node_name()
    config = StoreConfig(url=shared_server().url)

    def open_store(budget: WaitBudget | None = None) -> Ledger:
        if request.param == "node without the store":
            raise StoreError("away")
        return RedisLedger(config, Role.WRITE, budget)

    def open_node() -> Ledger:
        log: list[str] = []
        book = BookFile(tmp_path, name, "b", JobRecords(tmp_path), log.append)
        reconciler = Reconciler(name, book, log.append, lambda _: False)
        outage = StoreOutage(tmp_path, 60.0)
        return hook_ledger(name, open_store, book, outage, reconciler, log.append)

    yield Node(name, open_store if request.param == "store" else open_node)


@pytest.mark.parametrize("claim", [run(1), manual(1)], ids=["run", "manual"])
def test_a_count_is_granted_whole_or_not_at_all(node: Node, claim: Claim) -> None:
    assert node.ledger.reserve_count(claim, 3, node.seen()) == GrantedGpus(gpus(0, 1, 2))
    assert node.ledger.reserve_count(run(2), 2, node.seen()) == TooFewGpus(2, 1, 3, 0, 0, 0)
    assert node.owners() == dict.fromkeys(gpus(0, 1, 2), claim.owner)


def test_who_asks_again_is_told_what_it_has(node: Node) -> None:
    for _ in range(2):
        answer = node.ledger.reserve_count(run(1), 2, node.seen())
    assert answer == GrantedGpus(gpus(0, 1), repeated=True)
    again = node.ledger.reserve_given(run(1), gpus(1), node.seen())
    assert again == GrantedGpus(gpus(1), repeated=True)


def test_people_and_jobs_are_in_each_others_way(node: Node) -> None:
    node.ledger.reserve_given(job(1), gpus(0), node.seen())
    node.ledger.reserve_given(run(1), gpus(1), node.seen())
    node.ledger.reserve_given(manual(1), gpus(2), node.seen())
    for held, claim in ((0, run(2)), (1, job(2)), (2, run(2)), (1, manual(2)), (2, job(2))):
        answer = node.ledger.reserve_given(claim, gpus(held), node.seen())
        assert isinstance(answer, BlockedGpu)
        assert (answer.why, answer.holder is not None) == ("reserved", True)


def test_a_person_gets_no_gpu_that_is_in_use(node: Node) -> None:
    seen = node.seen(in_use=(0,), unknown=(1,), unhealthy={2: "hot"})
    assert node.ledger.reserve_count(run(1), 2, seen) == TooFewGpus(2, 1, 0, 1, 1, 0, 1)
    answer = node.ledger.reserve_given(run(1), gpus(0), seen)
    assert isinstance(answer, BlockedGpu) and answer.why == "unreserved"


def test_a_count_is_among_the_candidates(node: Node) -> None:
    among = GrantOptions(candidates=frozenset(gpus(1, 3)))
    assert node.ledger.reserve_count(run(1), 3, node.seen(), among) == TooFewGpus(3, 2, 0, 0, 0, 0)
    assert node.ledger.reserve_count(run(1), 2, node.seen(), among) == GrantedGpus(gpus(1, 3))


def test_the_least_recently_released_goes_first(node: Node) -> None:
    for index in (2, 0, 1):
        node.use(run(index), index)
    granted = [node.ledger.reserve_count(run(f"n{turn}"), 1, node.seen()) for turn in range(4)]
    assert granted == [GrantedGpus(gpus(index)) for index in (3, 2, 0, 1)]


def test_with_affinity_the_users_own_come_first(node: Node) -> None:
    for index, user in ((0, "ann"), (1, "bob"), (2, "ann")):
        node.use(run(index, user), index)
    assert node.ledger.reserve_count(run(5, "ann"), 1, node.seen(), AFFINITY) == GrantedGpus(
        gpus(2)
    )
    assert node.ledger.reserve_count(run(6, "ann"), 2, node.seen(), AFFINITY) == GrantedGpus(
        gpus(0, 3)
    )


def test_the_claim_is_shown_as_it_was_made(node: Node) -> None:
    claim = replace(manual(1), note='a "note" {é}')
    node.ledger.reserve_given(claim, gpus(1), node.seen())
    (held,) = node.view().reservations.values()
    assert held.claim == claim
    assert held.expires_at == pytest.approx(held.granted_at + 3600, abs=1)


def test_a_reservation_for_a_time_ends_by_itself(node: Node) -> None:
    node.ledger.reserve_given(manual(1, SHORT_S), gpus(1), node.seen())
    poll_until(lambda: not node.view().reservations)
    answer = node.ledger.reserve_given(run(1), gpus(1), node.seen())
    assert answer == GrantedGpus(gpus(1))
    assert node.ledger.release(node.name, manual(1).owner, "late") == []
    assert node.owners() == {uuid(1): run(1).owner}


def test_an_owner_may_reserve_anew_after_the_end(node: Node) -> None:
    claim = manual(1, SHORT_S)
    node.ledger.reserve_given(claim, gpus(1), node.seen())
    poll_until(lambda: not node.view().reservations)
    assert node.ledger.reserve_count(manual(1), 2, node.seen()) == GrantedGpus(gpus(0, 2))


def test_an_extension_counts_from_the_present_end(node: Node) -> None:
    node.ledger.reserve_given(manual(1), gpus(0, 1), node.seen())
    ends = {gpu: one.expires_at or 0.0 for gpu, one in node.view().reservations.items()}
    longer = node.ledger.extend(node.name, manual(1).owner, 600, gpus(1))
    assert [(one.gpu, one.expires_at) for one in longer] == [
        (uuid(1), pytest.approx(ends[uuid(1)] + 600, abs=0.01))
    ]
    assert len(node.ledger.extend(node.name, manual(1).owner, 60)) == 2
    shown = {gpu: one.expires_at for gpu, one in node.view().reservations.items()}
    assert shown == {
        uuid(0): pytest.approx(ends[uuid(0)] + 60, abs=0.01),
        uuid(1): pytest.approx(ends[uuid(1)] + 660, abs=0.01),
    }


def test_what_has_no_end_is_not_extended(node: Node) -> None:
    node.ledger.reserve_given(run(1), gpus(0), node.seen())
    assert node.ledger.extend(node.name, run(1).owner, 60) == []
    assert node.ledger.extend(node.name, manual(9).owner, 60) == []


@pytest.mark.parametrize("duration_s", [0, -1, float("nan"), float("inf"), 1e12])
def test_what_is_no_duration_is_refused(node: Node, duration_s: float) -> None:
    for ask in (
        lambda: node.ledger.reserve_count(manual(1, duration_s), 1, node.seen()),
        lambda: node.ledger.reserve_given(manual(1, duration_s), gpus(0), node.seen()),
        lambda: node.ledger.extend(node.name, manual(1).owner, duration_s),
        lambda: node.ledger.join_queue(node.name, waiter(run(1), lease_s=duration_s)),
    ):
        with pytest.raises(InputError, match="no duration"):
            ask()
    assert node.view().reservations == {}


def test_some_gpus_may_be_released(node: Node) -> None:
    node.ledger.reserve_given(run(1), gpus(0, 1, 2), node.seen())
    assert node.ledger.release(node.name, run(1).owner, "enough", gpus(1)) == [uuid(1)]
    assert node.owners() == dict.fromkeys(gpus(0, 2), run(1).owner)
    assert sorted(node.ledger.release(node.name, run(1).owner, "end")) == [*gpus(0, 2)]
    assert node.view().reservations == {}


def test_a_heartbeat_names_what_is_held_and_may_change_the_processes(node: Node) -> None:
    node.ledger.reserve_given(run(1), gpus(0, 1), node.seen())
    assert sorted(node.ledger.renew(node.name, run(1).owner)) == [*gpus(0, 1)]
    assert len(node.ledger.renew(node.name, run(1).owner, [ProcessId(7, 8)])) == 2
    assert {one.claim.processes for one in node.view().reservations.values()} == {
        (ProcessId(7, 8),)
    }
    node.ledger.release(node.name, run(1).owner, "needed", by="root")
    assert node.ledger.renew(node.name, run(1).owner) == []


def test_waiters_stand_in_the_order_of_their_coming(node: Node) -> None:
    coming = (3, 1, 2)
    assert [node.ledger.join_queue(node.name, waiter(run(one))) for one in coming] == [1, 2, 3]
    assert [node.ledger.join_queue(node.name, waiter(run(one))) for one in (1, 2, 3)] == [2, 3, 1]
    assert node.queue() == ["run:3", "run:1", "run:2"]
    node.ledger.leave_queue(node.name, ["run:3", "run:9"], "gave up")
    assert node.queue() == ["run:1", "run:2"]


def test_a_waiter_is_shown_as_it_came(node: Node) -> None:
    given = replace(waiter(run(1), count=2, lease_s=12.5), gpus=gpus(1, 3))
    node.ledger.join_queue(node.name, given)
    (first,) = node.view().queue
    assert replace(first, since=0.0, renewed_at=0.0) == given
    assert first.since == pytest.approx(node.view().read_at, abs=60)
    wait_for_next_ms()
    node.ledger.join_queue(node.name, replace(given, count=1))
    (again,) = node.view().queue
    assert (again.since, again.count) == (first.since, 1)
    assert again.renewed_at > first.renewed_at


def test_only_the_first_in_the_queue_is_granted(node: Node) -> None:
    for number in (1, 2):
        node.ledger.join_queue(node.name, waiter(run(number)))
    for _ in range(2):
        assert node.ledger.reserve_count(run(2), 1, node.seen(), QUEUES) == QueuePosition(2)
        assert node.ledger.reserve_given(manual(3), gpus(3), node.seen(), QUEUES) == QueuePosition(
            3
        )
    assert node.ledger.reserve_count(run(1), 1, node.seen(), QUEUES) == GrantedGpus(gpus(0))
    assert node.queue() == [run(2).owner]
    assert node.ledger.reserve_given(run(2), gpus(2), node.seen(), QUEUES) == GrantedGpus(gpus(2))
    assert node.queue() == []
    assert node.ledger.reserve_count(manual(3), 1, node.seen(), QUEUES) == GrantedGpus(gpus(1))


def test_a_job_does_not_queue(node: Node) -> None:
    node.ledger.join_queue(node.name, waiter(run(1), count=4))
    assert node.ledger.reserve_count(job(1), 1, node.seen()) == GrantedGpus(gpus(0))
    assert node.queue() == [run(1).owner]


def test_who_holds_gpus_already_waits_no_more(node: Node) -> None:
    """The answer to the grant was lost, say."""
    node.ledger.reserve_count(run(2), 1, node.seen())
    for number in (1, 2):
        node.ledger.join_queue(node.name, waiter(run(number)))
    answer = node.ledger.reserve_count(run(2), 1, node.seen(), QUEUES)
    assert answer == GrantedGpus(gpus(0), repeated=True)
    assert node.queue() == [run(1).owner]


def test_a_quarantine_keeps_people_out(node: Node) -> None:
    assert node.ledger.quarantine(node.name, uuid(0), "hot", "root")
    assert node.ledger.reserve_count(run(1), 1, node.seen()) == GrantedGpus(gpus(1))
    answer = node.ledger.reserve_given(manual(1), gpus(0), node.seen())
    assert isinstance(answer, BlockedGpu) and answer.why == "quarantined"
