"""What one user may have of a node, decided by the node's book: with many requests at once, too."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_samples import gpus, job, manual, new_node_name, observation, run, waiter
from ledgers.hook_ledger import CommittingLedger, hook_ledger
from servers.private_redis import shared_server

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import LimitError, StoreError
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus, QueuePosition
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.queue.queued_request import QueuedRequest
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.port import GrantOptions, Ledger
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.user_limits import UserLimits
from canhazgpu.ledger.values import Claim
from canhazgpu.ledger.wait_budget import WaitBudget

GPUS, MOST, AT_ONCE = 8, 3, 12
LIMITS = UserLimits(max_gpus=MOST, max_waiters=2)
LIMITED = GrantOptions(queues=True, limits=LIMITS)


class Node:
    """A node whose book decides; each process of it opens its own ledger."""

    def __init__(self, place: Path, *, has_store: bool) -> None:
        self.name, self.place = new_node_name(), place
        # All processes of the node have the one that was there before them.
        self.store = StoreConfig(url=shared_server().url) if has_store else None

    @property
    def ledger(self) -> CommittingLedger:
        told: list[str] = []
        book = BookFile(self.place, self.name, "b", JobRecords(self.place), told.append)
        reconciler = Reconciler(self.name, book, told.append, lambda claim: False)
        outage = StoreOutage(self.place, 60.0)
        return hook_ledger(self.name, self.open_store, book, outage, reconciler, told.append)

    def open_store(self, budget: WaitBudget) -> Ledger:
        if self.store is None:
            raise StoreError("away")
        return RedisLedger(self.store, Role.WRITE)

    def reserve(self, claim: Claim, count: int = 1, limits: UserLimits = LIMITS) -> object:
        seen = observation(self.name, GPUS, age_s=-1000.0)
        options = replace(LIMITED, limits=limits)
        return self.ledger.reserve_count(claim, count, seen, options)

    def wait(self, claim: Claim, count: int = 1) -> int:
        return self.ledger.wait_in_queue(QueuedRequest(waiter(claim, count)), LIMITS)

    def held(self) -> int:
        (view,) = self.ledger.read_nodes([self.name])
        return len(view.reservations)


@pytest.fixture(params=["with the store", "without it"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Node:
    return Node(tmp_path, has_store=request.param == "with the store")


def outcomes(count: int, act: Callable[[int], object]) -> Counter[str]:
    """How often each class of outcome came of so many processes that do this at once."""
    start_read, start_write = os.pipe()
    results: list[tuple[int, int]] = []
    for number in range(count):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(start_write)
            os.read(start_read, 1)
            try:
                told = type(act(number)).__name__
            except BaseException as exc:
                told = type(exc).__name__
            os.write(write, told.encode())
            os._exit(0)
        os.close(write)
        results.append((pid, read))
    os.close(start_read)
    os.close(start_write)
    found = Counter[str]()
    for pid, read in results:
        with os.fdopen(read) as stream:
            found[stream.read()] += 1
        os.waitpid(pid, 0)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", [run, manual])
def test_of_many_requests_at_once_exactly_as_many_pass_as_the_limit_allows(
    node: Node, kind: Callable[[int], Claim]
) -> None:
    found = outcomes(AT_ONCE, lambda number: node.reserve(kind(number)))

    assert found == {"GrantedGpus": MOST, "LimitError": AT_ONCE - MOST}
    assert node.held() == MOST


@pytest.mark.slow
def test_of_many_who_join_at_once_exactly_as_many_wait_as_the_limit_allows(node: Node) -> None:
    found = outcomes(AT_ONCE, lambda number: node.wait(run(number)))

    assert found == {"int": LIMITS.max_waiters, "LimitError": AT_ONCE - LIMITS.max_waiters}
    assert len(node.ledger.read_nodes([node.name])[0].queue) == LIMITS.max_waiters


@pytest.mark.slow
def test_whatever_waits_and_is_granted_at_once_nobody_holds_more(node: Node) -> None:
    def act(number: int) -> object:
        return node.wait(run(number), 2) if number % 2 else node.reserve(run(number), 1)

    outcomes(AT_ONCE, act)

    for number in range(AT_ONCE):
        outcomes(1, lambda _, own=number: node.reserve(run(own), 2 if own % 2 else 1))
    assert node.held() <= MOST


def test_a_repeated_request_gets_what_it_has(node: Node) -> None:
    first = node.reserve(run(1), MOST)
    assert node.reserve(run(1), MOST) == replace(first, repeated=True)  # type: ignore[type-var]


def test_the_one_who_waited_gets_what_was_waited_for(node: Node) -> None:
    assert node.wait(run(1), 2) == 1
    assert node.wait(run(2), 1) == 2
    # Asked again it keeps its place, although there is no room for more.
    assert node.wait(run(2), 1) == 2
    with pytest.raises(LimitError, match="you hold 0, wait for 3, and ask for 1 more"):
        node.reserve(run(3))
    assert node.reserve(run(2)) == QueuePosition(2)
    assert isinstance(node.reserve(run(1), 2), GrantedGpus)
    assert isinstance(node.reserve(run(2), 1), GrantedGpus)


def test_others_jobs_and_administrators_are_not_limited(node: Node) -> None:
    assert isinstance(node.reserve(run(1), MOST), GrantedGpus)
    other = replace(run(2), uid=2000)
    assert isinstance(node.reserve(other, 1), GrantedGpus)
    assert isinstance(node.reserve(replace(run(3), uid=0), 2, UserLimits()), GrantedGpus)
    given = node.ledger.reserve_given(
        job(4), gpus(6), observation(node.name, GPUS, age_s=-1000.0), GrantOptions()
    )
    assert isinstance(given, GrantedGpus)


def test_named_gpus_count_as_well(node: Node) -> None:
    seen = observation(node.name, GPUS, age_s=-1000.0)
    assert isinstance(node.ledger.reserve_given(run(1), gpus(0, 1), seen, LIMITED), GrantedGpus)
    with pytest.raises(LimitError):
        node.ledger.reserve_given(run(2), gpus(2, 3), seen, LIMITED)
    assert isinstance(node.ledger.reserve_given(run(2), gpus(2), seen, LIMITED), GrantedGpus)
    # A limit is told before what is in the way.
    with pytest.raises(LimitError):
        node.ledger.reserve_given(run(3), gpus(2), seen, LIMITED)
    taken = node.ledger.reserve_given(replace(run(3), uid=7), gpus(2), seen, LIMITED)
    assert isinstance(taken, BlockedGpu)


def test_what_was_released_counts_no_more(node: Node) -> None:
    node.reserve(run(1), MOST)
    node.ledger.release(node.name, run(1).owner, "end")
    assert isinstance(node.reserve(run(2), MOST), GrantedGpus)


@pytest.mark.slow
def test_of_many_extensions_at_once_only_as_many_pass_as_the_latest_end_allows(node: Node) -> None:
    node.reserve(manual(1, 60))

    def extend(_: int) -> object:
        return node.ledger.extend(node.name, manual(1).owner, 100, longest_s=400)

    assert outcomes(AT_ONCE, extend) == {"list": 3, "LimitError": AT_ONCE - 3}
    (held,) = node.ledger.read_nodes([node.name])[0].reservations.values()
    assert held.expires_at is not None
    assert held.expires_at - held.granted_at == pytest.approx(360, abs=1)
