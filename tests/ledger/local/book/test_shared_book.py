"""The node's own book of GPUs that several jobs share: alone, beside the store, and made anew."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_samples import job, new_node_name, observation, run, share, uuid, view, wait_for_next_ms
from ledgers.hook_ledger import CommittingLedger, hook_ledger
from servers.private_redis import shared_server

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import StoreError
from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus
from canhazgpu.ledger.journal_entries import GRANT, JournalEntry, entry_from_dict, entry_to_dict
from canhazgpu.ledger.local.book.book import Book
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.port import Ledger, Observation
from canhazgpu.ledger.record_json import reservation_from_json
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim
from canhazgpu.ledger.wait_budget import WaitBudget

GPU = uuid(0)
FIRST, SECOND, THIRD = share(1), share(2), share(3)


class Node:
    """A node whose store can be lost; each `process` is one process of it."""

    def __init__(self, directory: Path) -> None:
        self.name = new_node_name()
        self.directory = directory
        self.records = JobRecords(directory)
        self.store = RedisLedger(StoreConfig(url=shared_server().url), Role.WRITE)
        self.lost = False
        self.told: list[str] = []

    def open_store(self, budget: WaitBudget) -> Ledger:
        if self.lost:
            raise StoreError("lost")
        return self.store

    def book_file(self) -> BookFile:
        return BookFile(self.directory, self.name, "b", self.records, self.told.append)

    def process(self) -> CommittingLedger:
        book = self.book_file()
        reconciler = Reconciler(self.name, book, self.told.append, lambda claim: False)
        outage = StoreOutage(self.directory, 0.0)
        return hook_ledger(self.name, self.open_store, book, outage, reconciler, self.told.append)

    def reserve(self, claim: Claim, **seen: object) -> GrantedGpus | BlockedGpu:
        wait_for_next_ms()
        found: Observation = observation(self.name, **seen)  # type: ignore[arg-type]
        answer = self.process().reserve_given(claim, [GPU], found)
        assert isinstance(answer, GrantedGpus | BlockedGpu)
        return answer

    def book(self) -> Book:
        with self.book_file().open() as transaction:
            return transaction.book

    def in_book(self) -> list[str]:
        held = self.book().reservations.get(GPU)
        return [one.claim.owner for one in held.holders] if held else []

    def in_store(self) -> list[str]:
        held = view(self.store, self.name).reservations.get(GPU)
        return [one.claim.owner for one in held.holders] if held else []


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize("lost", [False, True])
def test_the_book_has_every_job_that_shares_a_gpu(node: Node, lost: bool) -> None:
    node.lost = lost
    for claim in (FIRST, SECOND):
        assert node.reserve(claim) == GrantedGpus((GPU,))
    assert node.in_book() == [FIRST.owner, SECOND.owner]
    assert isinstance(node.reserve(job(9)), BlockedGpu)
    node.process().release(node.name, FIRST.owner, "end")
    assert node.in_book() == [SECOND.owner]
    assert node.book().released_at == {}
    node.process().release(node.name, SECOND.owner, "end")
    assert node.in_book() == []
    assert GPU in node.book().released_at


def test_without_the_store_use_by_a_co_holder_alone_is_no_obstacle(node: Node) -> None:
    node.lost = True
    node.reserve(FIRST)
    seen = {"in_use": (0,), "covered": {0: (FIRST.owner,)}}
    assert node.reserve(SECOND, **seen) == GrantedGpus((GPU,))
    node.process().release(node.name, FIRST.owner, "end")
    answer = node.reserve(THIRD, **seen)
    assert isinstance(answer, BlockedGpu) and answer.why == "unreserved"


@pytest.mark.parametrize("other", [job(9), share(9, "mps")])
def test_without_the_store_a_share_never_comes_beside_another_claim(
    node: Node, other: Claim
) -> None:
    node.lost = True
    node.reserve(other)
    answer = node.reserve(FIRST)
    assert isinstance(answer, BlockedGpu) and answer.why == "reserved"


def test_the_store_hears_of_all_shares_after_an_outage(node: Node) -> None:
    node.reserve(FIRST)
    node.lost = True
    node.reserve(SECOND)
    node.reserve(THIRD)
    node.process().release(node.name, FIRST.owner, "end")
    node.lost = False
    (found,) = node.process().read_nodes([node.name])
    assert node.in_store() == [SECOND.owner, THIRD.owner] == node.in_book()
    assert [one.claim for one in found.all_reservations()] == [SECOND, THIRD]


def test_what_the_store_lost_is_restored_for_each_job(node: Node) -> None:
    node.reserve(FIRST)
    node.reserve(SECOND)
    node.store.release(node.name, FIRST.owner, "lost")
    node.store.release(node.name, SECOND.owner, "lost")
    wait_for_next_ms()
    assert node.store.reserve_given(run(9), [GPU], observation(node.name)) == GrantedGpus((GPU,))
    assert node.reserve(THIRD) == GrantedGpus((GPU,))
    assert node.in_store() == [FIRST.owner, SECOND.owner, THIRD.owner]
    assert any("overruled" in line for line in node.told)


def test_a_view_shows_the_shares_of_store_and_book(node: Node) -> None:
    node.reserve(FIRST)
    node.store.reserve_given(SECOND, [GPU], observation(node.name))
    (found,) = node.process().read_nodes([node.name])
    assert [one.claim for one in found.all_reservations()] == [FIRST, SECOND]


def test_a_book_made_anew_from_the_records_knows_the_shares(node: Node) -> None:
    gpus = [AssignedGpu(0, GPU, 0)]
    for claim in (FIRST, SECOND):
        owner = JobOwner("c1", claim.job_id or "", 0)
        node.records.begin(owner, "ann", "b")
        node.records.complete(owner, gpus, constrained=False, export="uuid", share=claim.share)
    node.lost = True
    assert node.in_book() == [FIRST.owner, SECOND.owner]
    assert node.reserve(THIRD) == GrantedGpus((GPU,))
    assert isinstance(node.reserve(job(9)), BlockedGpu)


@pytest.mark.parametrize("share_text", ["half", {"kind": "shard"}, {"kind": 1, "amount": 1}])
def test_a_record_with_an_unreadable_share_is_of_the_whole_gpu(
    node: Node, share_text: object
) -> None:
    owner = JobOwner("c1", "1", 0)
    node.records.begin(owner, "ann", "b")
    node.records.complete(owner, [], constrained=False, export="uuid", share=FIRST.share)
    path = node.directory / "jobs" / "1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"share": share_text}))
    record = node.records.find("1")
    assert record is not None and record.share is None


def test_a_release_that_does_not_know_shares_keeps_a_journaled_one_for_nobody() -> None:
    entry = JournalEntry(GRANT, 5.0, FIRST.owner, (GPU,), FIRST)
    data = json.loads(json.dumps(entry_to_dict(entry)))
    assert entry_from_dict(data) == entry
    assert data["owner"] == f"shared:{FIRST.owner}"
    assert reservation_from_json("", data["claim"]).claim == replace(FIRST, owner=data["owner"])
