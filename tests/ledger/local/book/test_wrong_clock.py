"""A node that booted with a wrong clock, and grants alone: what it promised lasts so long."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_samples import gpus, job, manual, new_node_name, observation, run, uuid, view
from ledgers.hook_ledger import CommittingLedger, hook_ledger
from servers.private_redis import shared_server

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import NodeStateError, StoreError
from canhazgpu.ledger.grant_answers import GrantedGpus
from canhazgpu.ledger.local.book import book_file as book_module
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.wait_budget import WaitBudget

DAY_S = 86400.0
PROMISED_S = 600.0
NEAR_S = 60.0
"""Far less than the clock is wrong, far more than a test takes."""

STEPS = pytest.mark.parametrize("wrong_s", [-DAY_S, -3600.0, 3600.0, DAY_S])


class Node:
    """A node with an agent; the store may be away, and may refuse to write."""

    def __init__(self, place: Path) -> None:
        self.name = new_node_name()
        self.place = place
        self.boot = "b"
        self.is_away = False
        self.store = RedisLedger(StoreConfig(url=shared_server().url), Role.WRITE)

    def book(self) -> BookFile:
        return BookFile(self.place, self.name, self.boot, JobRecords(self.place), print)

    def reconciler(self) -> Reconciler:
        return Reconciler(self.name, self.book(), print, lambda _: False)

    def agent(self) -> CommittingLedger:
        outage = StoreOutage(self.place, 60.0)
        return hook_ledger(
            self.name, self.open_store, self.book(), outage, self.reconciler(), print
        )

    def open_store(self, budget: WaitBudget) -> Ledger:
        if self.is_away:
            raise StoreError("away")
        return self.store

    def reserve(self, number: int, index: int) -> None:
        claim = manual(number, PROMISED_S)
        seen = observation(self.name, age_s=-1000.0)
        answer = self.agent().reserve_given(claim, gpus(index), seen)
        assert answer == GrantedGpus(gpus(index))

    def left_s(self) -> dict[str, float]:
        """For how long each GPU is held yet, by the book; it has to be as the store says."""
        in_store = view(self.store, self.name)
        with self.book().open() as transaction:
            held = transaction.book.reservations
        ends = {gpu: one.expires_at or 0.0 for gpu, one in held.items()}
        assert {gpu: one.expires_at for gpu, one in in_store.reservations.items()} == pytest.approx(
            ends, abs=0.01
        )
        return {gpu: end - in_store.read_at for gpu, end in ends.items()}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    yield Node(tmp_path)


@pytest.fixture
def wrong_clock(wrong_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        @staticmethod
        def time() -> float:
            return time.time() + wrong_s

    monkeypatch.setattr(book_module, "time", Clock)


@STEPS
@pytest.mark.usefixtures("wrong_clock")
def test_a_reservation_made_alone_lasts_as_long_as_was_promised(node: Node) -> None:
    node.is_away = True
    node.reserve(1, 0)
    node.is_away = False
    node.agent().read_nodes([node.name])
    assert node.left_s() == {uuid(0): pytest.approx(PROMISED_S, abs=NEAR_S)}


@STEPS
@pytest.mark.usefixtures("wrong_clock")
def test_so_does_one_that_the_watcher_tells_the_store(node: Node) -> None:
    node.is_away = True
    node.reserve(1, 0)
    node.reconciler().deliver_journal(node.store)
    assert node.left_s() == {uuid(0): pytest.approx(PROMISED_S, abs=NEAR_S)}


@STEPS
@pytest.mark.usefixtures("wrong_clock")
def test_an_extension_made_alone_is_as_long_as_was_asked_for(node: Node) -> None:
    node.is_away = True
    node.reserve(1, 0)
    node.agent().extend(node.name, manual(1).owner, PROMISED_S)
    node.is_away = False
    node.agent().read_nodes([node.name])
    assert node.left_s() == {uuid(0): pytest.approx(2 * PROMISED_S, abs=NEAR_S)}


@pytest.mark.parametrize("wrong_s", [-3600.0, -100.0, 100.0])
@pytest.mark.usefixtures("wrong_clock")
def test_what_was_promised_before_the_reboot_keeps_its_end(node: Node) -> None:
    """Its end is by the store's clock; what is asked for later adds to that."""
    node.reserve(1, 0)
    node.reserve(2, 1)
    node.boot, node.is_away = "c", True
    node.reserve(3, 2)
    node.agent().extend(node.name, manual(2).owner, PROMISED_S)
    node.is_away = False
    node.agent().read_nodes([node.name])
    near = {uuid(0): PROMISED_S, uuid(1): 2 * PROMISED_S, uuid(2): PROMISED_S}
    assert node.left_s() == pytest.approx(near, abs=NEAR_S)


@STEPS
@pytest.mark.usefixtures("wrong_clock")
def test_it_is_corrected_once_whatever_is_killed_on_the_way(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal has been told, and nobody has noted that; then it is told again."""
    node.is_away = True
    node.reserve(1, 0)
    with monkeypatch.context() as patched:
        patched.setattr(Reconciler, "_recorded", _killed)
        with pytest.raises(KilledError):
            node.reconciler().deliver_journal(node.store)
    with monkeypatch.context() as patched:
        patched.setattr("canhazgpu.ledger.local.book.journal.Journal.drop", _killed)
        with pytest.raises(KilledError):
            node.reconciler().deliver_journal(node.store)
    node.is_away = False
    node.reserve(2, 1)
    node.agent().read_nodes([node.name])
    near = dict.fromkeys(gpus(0, 1), PROMISED_S)
    assert node.left_s() == pytest.approx(near, abs=NEAR_S)


@STEPS
@pytest.mark.usefixtures("wrong_clock")
def test_a_grant_that_is_open_meanwhile_is_committed_with_its_end_corrected(node: Node) -> None:
    node.is_away = True
    opened = node.agent()
    claim = manual(1, PROMISED_S)
    seen = observation(node.name, age_s=-1000.0)
    super(CommittingLedger, opened).reserve_given(claim, gpus(0), seen)
    node.reserve(2, 1)
    node.is_away = False
    node.agent().read_nodes([node.name])
    assert opened.commit(claim.owner) is None
    node.agent().read_nodes([node.name])
    near = dict.fromkeys(gpus(0, 1), PROMISED_S)
    assert node.left_s() == pytest.approx(near, abs=NEAR_S)


@pytest.mark.parametrize("wrong_s", [DAY_S])
@pytest.mark.usefixtures("wrong_clock")
def test_a_gpu_released_tomorrow_is_free_today(node: Node) -> None:
    node.is_away = True
    for claim in (run(1), job(1)):
        node.agent().reserve_given(claim, gpus(0), observation(node.name, age_s=-1000.0))
        node.agent().release(node.name, claim.owner, "ended")
    node.is_away = False
    answer = node.agent().reserve_count(run(2), 4, observation(node.name, age_s=-1000.0))
    assert answer == GrantedGpus(answer.gpus) and len(answer.gpus) == 4


@pytest.mark.parametrize("wrong_s", [3600.0])
@pytest.mark.usefixtures("wrong_clock")
def test_a_book_of_the_release_before_is_of_the_stores_clock(node: Node) -> None:
    node.reserve(1, 0)
    path = node.place / "book.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({one: data[one] for one in data if not one.startswith("clock_e")}))
    node.agent().read_nodes([node.name])
    assert node.left_s() == {uuid(0): pytest.approx(PROMISED_S, abs=NEAR_S)}


@pytest.mark.parametrize("garbage", ["x", True, [1], -1.5, {}, float("nan")])
def test_garbage_about_the_clock_is_no_book(node: Node, garbage: object) -> None:
    node.reserve(1, 0)
    path = node.place / "book.json"
    for key in ("clock_estimated_after", "clock_correction"):
        data = json.loads(path.read_text())
        path.write_text(json.dumps({**data, key: garbage}))
        with pytest.raises(NodeStateError), node.book().open():
            pass
        path.write_text(json.dumps(data))


class KilledError(BaseException):
    """As SIGKILL: nobody catches it."""


def _killed(*_: object) -> None:
    raise KilledError
