"""What a node granted to people, and a store that forgets, is set back, or is changed directly."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from ledger_samples import gpus, job, manual, new_node_name, observation, run, uuid, waiter
from ledgers.hook_ledger import CommittingLedger, hook_ledger
from polling import poll_until
from servers.private_redis import shared_server

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import NodeStateError, StoreError
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus, QueuePosition, TooFewGpus
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.published_book import read_published
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.published_ledger import PublishedLedger
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.port import GrantOptions, Ledger
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim
from canhazgpu.ledger.wait_budget import WaitBudget
from canhazgpu.node.process_id import ProcessId

QUEUES = GrantOptions(queues=True)


class Node:
    """A node with an agent, and the store, which can be taken away, emptied and set back."""

    def __init__(self, place: Path) -> None:
        self.name = new_node_name()
        self.place = place
        self.told: list[str] = []
        self.dead: set[str] = set()
        self.is_away = False
        self.store = RedisLedger(StoreConfig(url=shared_server().url), Role.WRITE)

    def agent(self, *, local: bool = True) -> CommittingLedger:
        """What a handler, a hook or the watcher opens."""
        book = self.book()
        reconciler = Reconciler(
            self.name, book, self.told.append, lambda claim: claim.owner in self.dead
        )
        return hook_ledger(
            self.name,
            self.open_store,
            book,
            StoreOutage(self.place, 60.0),
            reconciler,
            self.told.append,
            decides_alone=local,
        )

    def book(self) -> BookFile:
        return BookFile(self.place, self.name, "b", JobRecords(self.place), self.told.append)

    def direct(self) -> PublishedLedger:
        """What a command opens where no agent runs."""
        return PublishedLedger(
            self.name, self.store, lambda: read_published(self.place, self.name, "b")
        )

    def open_store(self, budget: WaitBudget) -> Ledger:
        if self.is_away:
            raise StoreError("away")
        return self.store

    def seen(self, **details: Any) -> Any:
        return observation(self.name, age_s=-1000.0, **details)

    def hold(self, claim: Claim, *indices: int) -> None:
        answer = self.agent().reserve_given(claim, gpus(*indices), self.seen())
        assert answer == GrantedGpus(gpus(*indices))

    def in_book(self) -> dict[str, str]:
        with self.book().open() as transaction:
            return {gpu: one.claim.owner for gpu, one in transaction.book.reservations.items()}

    def in_store(self) -> dict[str, str]:
        (view,) = self.store.read_nodes([self.name])
        return {gpu: one.claim.owner for gpu, one in view.reservations.items()}

    def shown(self, ledger: Ledger | None = None) -> dict[str, str]:
        (view,) = (ledger or self.agent()).read_nodes([self.name])
        return {gpu: one.claim.owner for gpu, one in view.reservations.items()}

    def ends(self, ledger: Ledger | None = None) -> dict[str, float | None]:
        (view,) = (ledger or self.agent()).read_nodes([self.name])
        return {gpu: one.expires_at for gpu, one in view.reservations.items()}

    def raw(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(shared_server().socket))

    def keys(self) -> list[bytes]:
        with self.raw() as client:
            found: list[bytes] = client.keys(f"canhazgpu:{{{self.name}}}:*")
        return found

    def copy_store(self) -> dict[bytes, Any]:
        with self.raw() as client:
            return {key: client.dump(key) for key in self.keys()}

    def set_store_back(self, copy: dict[bytes, Any] | None = None) -> None:
        """The store forgets all, or is an old copy of itself."""
        with self.raw() as client:
            for key in self.keys():
                client.delete(key)
            for key, dump in (copy or {}).items():
                client.restore(key, 0, dump)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    yield Node(tmp_path)


CLAIMS = pytest.mark.parametrize("claim", [run(1), manual(1)], ids=["run", "manual"])


@CLAIMS
def test_a_store_that_forgets_is_told_again(node: Node, claim: Claim) -> None:
    node.hold(claim, 0, 1)
    ends = node.ends()
    node.set_store_back()
    assert node.shown() == dict.fromkeys(gpus(0, 1), claim.owner)
    assert node.in_store() == node.in_book() == dict.fromkeys(gpus(0, 1), claim.owner)
    assert node.ends(node.store) == pytest.approx(ends, abs=0.01)
    assert [one.split()[0] for one in node.told] == ["event=restored"]


@pytest.mark.parametrize("later", [0, 1])
@pytest.mark.parametrize("ask", ["agent", "direct"])
def test_each_gpu_has_its_own_end_again(node: Node, ask: str, later: int) -> None:
    """Without the agent the node knows of them from the store alone."""
    ledger = node.agent() if ask == "agent" else node.direct()
    granted = ledger.reserve_given(manual(1), gpus(0, 1), node.seen())
    assert granted == GrantedGpus(gpus(0, 1))
    ledger.extend(node.name, manual(1).owner, 3600.0, gpus(later))
    ends = node.ends()
    assert ends[uuid(later)] == pytest.approx(ends[uuid(1 - later)] + 3600.0, abs=0.1)
    node.set_store_back()
    node.shown()
    assert node.ends(node.store) == pytest.approx(ends, abs=0.01)


@CLAIMS
def test_a_store_that_forgets_grants_nobody_elses_gpu(node: Node, claim: Claim) -> None:
    node.hold(claim, 0)
    node.set_store_back()
    for other in (run(2), job(2)):
        answer = node.agent().reserve_given(other, gpus(0), node.seen())
        assert isinstance(answer, BlockedGpu)
        assert answer.holder is not None and answer.holder.claim.owner == claim.owner
    direct = node.direct().reserve_given(run(3), gpus(0), node.seen())
    assert isinstance(direct, BlockedGpu)


@CLAIMS
def test_without_the_store_the_book_decides_and_the_journal_tells(node: Node, claim: Claim) -> None:
    node.is_away = True
    node.hold(claim, 0)
    answer = node.agent().reserve_given(run(2), gpus(0), node.seen())
    assert isinstance(answer, BlockedGpu)
    node.is_away = False
    assert node.in_store() == {}
    node.agent().read_nodes([node.name])
    assert node.in_store() == {uuid(0): claim.owner}
    assert node.ends(node.store) == pytest.approx(node.ends(), abs=0.01)


def test_a_site_may_forbid_to_decide_without_the_store(node: Node) -> None:
    node.is_away = True
    for ask in (
        lambda: node.agent(local=False).reserve_count(run(1), 1, node.seen()),
        lambda: node.agent(local=False).extend(node.name, manual(1).owner, 60),
    ):
        with pytest.raises(StoreError):
            ask()
    assert node.in_book() == {}


@CLAIMS
def test_an_owner_that_is_gone_is_not_restored(node: Node, claim: Claim) -> None:
    node.hold(claim, 0)
    node.set_store_back()
    node.dead.add(claim.owner)
    assert node.shown() == node.in_book() == node.in_store() == {}


@CLAIMS
def test_a_release_without_the_store_reaches_it(node: Node, claim: Claim) -> None:
    node.hold(claim, 0, 1)
    node.is_away = True
    assert node.agent().release(node.name, claim.owner, "end", gpus(1)) == [uuid(1)]
    node.is_away = False
    node.agent().read_nodes([node.name])
    assert node.in_store() == node.in_book() == {uuid(0): claim.owner}


@pytest.mark.parametrize("by", ["", "root"])
@CLAIMS
def test_an_old_copy_of_the_store_revives_nothing(node: Node, claim: Claim, by: str) -> None:
    node.hold(claim, 0)
    copy = node.copy_store()
    node.agent().release(node.name, claim.owner, "end", by=by)
    node.set_store_back(copy)
    assert node.in_store() == {uuid(0): claim.owner}
    assert node.shown() == {}
    assert node.in_store() == node.in_book() == {}
    node.hold(run(2), 0)


@CLAIMS
def test_an_old_copy_of_the_store_takes_nothing_back(node: Node, claim: Claim) -> None:
    """It knows the earlier owner of the GPU, and not the present one."""
    node.hold(run(9), 0)
    copy = node.copy_store()
    node.agent().release(node.name, run(9).owner, "end")
    node.hold(claim, 0)
    node.set_store_back(copy)
    assert node.shown() == {uuid(0): claim.owner}
    assert node.in_store() == {uuid(0): claim.owner}


def test_a_copy_from_before_an_owners_grant_of_today_takes_nothing_back(node: Node) -> None:
    """Who asks again under the same token is no owner that was released."""
    node.hold(manual(1), 0)
    node.agent().release(node.name, manual(1).owner, "end")
    node.hold(manual(1), 1)
    assert node.shown() == {uuid(1): manual(1).owner}
    assert node.in_store() == {uuid(1): manual(1).owner}


@pytest.mark.parametrize("how", ["forgets", "is old", "is away"])
def test_an_extended_end_is_not_lost(node: Node, how: str) -> None:
    node.hold(manual(1), 0)
    copy = node.copy_store()
    (end,) = node.ends().values()
    node.is_away = how == "is away"
    (longer,) = node.agent().extend(node.name, manual(1).owner, 1000)
    assert end is not None
    assert longer.expires_at == pytest.approx(end + 1000, abs=0.01)
    if how != "is away":
        node.set_store_back(copy if how == "is old" else None)
    node.is_away = False
    assert node.ends() == {uuid(0): pytest.approx(end + 1000, abs=0.01)}
    assert node.ends(node.store) == {uuid(0): pytest.approx(end + 1000, abs=0.01)}


def test_what_the_store_let_expire_is_given_back_to_who_extended_it(node: Node) -> None:
    node.hold(manual(1, 0.2), 0)
    node.is_away = True
    assert node.agent().extend(node.name, manual(1).owner, 3600)
    poll_until(lambda: node.in_store() == {})
    # The store has noticed it, and written it into its history.
    node.store.renew(node.name, "nobody")
    node.is_away = False
    assert node.shown() == {uuid(0): manual(1).owner}
    assert node.in_store() == node.in_book() == {uuid(0): manual(1).owner}


def test_an_extension_of_what_is_released_gives_nothing(node: Node) -> None:
    """Both reach the store together."""
    node.hold(manual(1, 0.2), 0)
    node.is_away = True
    node.agent().extend(node.name, manual(1).owner, 3600)
    node.agent().release(node.name, manual(1).owner, "end")
    poll_until(lambda: node.in_store() == {})
    taken = node.store.reserve_given(run(2), gpus(0), node.seen())
    assert taken == GrantedGpus(gpus(0))
    node.is_away = False
    assert node.shown() == node.in_store() == {uuid(0): run(2).owner}


def test_an_end_that_was_extended_in_the_store_is_the_books(node: Node) -> None:
    """By a command without the agent."""
    node.hold(manual(1), 0)
    (end,) = node.ends().values()
    node.direct().extend(node.name, manual(1).owner, 500)
    node.agent().read_nodes([node.name])
    node.set_store_back()
    assert end is not None
    assert node.ends() == {uuid(0): pytest.approx(end + 500, abs=0.01)}


def test_an_end_comes_without_the_store(node: Node) -> None:
    node.is_away = True
    node.hold(manual(1, 0.05), 0)
    poll_until(lambda: node.shown() == {})
    node.hold(run(2), 0)
    node.is_away = False
    node.agent().read_nodes([node.name])
    assert node.in_store() == {uuid(0): run(2).owner}


@CLAIMS
def test_a_release_in_the_store_is_heeded(node: Node, claim: Claim) -> None:
    """By a command without the agent, while none runs."""
    node.hold(claim, 0, 1)
    direct = node.direct()
    assert node.shown(direct) == dict.fromkeys(gpus(0, 1), claim.owner)
    assert direct.release(node.name, claim.owner, "needed", gpus(0), by="root") == [uuid(0)]
    assert node.shown(node.direct()) == {uuid(1): claim.owner}
    assert node.direct().reserve_given(run(2), gpus(0), node.seen()) == GrantedGpus(gpus(0))
    assert node.shown() == {uuid(0): run(2).owner, uuid(1): claim.owner}
    assert node.in_book() == node.in_store() == {uuid(0): run(2).owner, uuid(1): claim.owner}


@CLAIMS
def test_a_release_in_the_store_that_has_lost_it_frees_the_gpu(node: Node, claim: Claim) -> None:
    """A command without the agent finds the owner dead, and the store does not know it."""
    node.hold(claim, 0)
    node.set_store_back()
    direct = node.direct()
    assert node.shown(direct) == {uuid(0): claim.owner}
    direct.release(node.name, claim.owner, "its processes are gone")
    assert direct.reserve_given(run(2), gpus(0), node.seen()) == GrantedGpus(gpus(0))
    node.dead.add(claim.owner)
    assert node.shown() == node.in_book() == node.in_store() == {uuid(0): run(2).owner}


def test_what_a_command_without_the_agent_has_stays_its_own(node: Node) -> None:
    direct = node.direct()
    assert direct.reserve_given(run(1), gpus(0), node.seen()) == GrantedGpus(gpus(0))
    assert direct.reserve_given(manual(1), gpus(1), node.seen()) == GrantedGpus(gpus(1))
    for held in (0, 1):
        answer = node.agent().reserve_given(run(2), gpus(held), node.seen())
        assert isinstance(answer, BlockedGpu)
    node.hold(run(2), 2)
    node.is_away = True
    assert node.agent().reserve_count(run(3), 2, node.seen()) == TooFewGpus(2, 1, 3, 0, 0, 0)
    node.is_away = False
    direct.release(node.name, run(1).owner, "end")
    direct.release(node.name, manual(1).owner, "end")
    assert node.agent().reserve_count(run(3), 3, node.seen()) == GrantedGpus(gpus(0, 1, 3))


def test_a_command_without_the_agent_gets_nothing_that_the_book_has(node: Node) -> None:
    node.is_away = True
    node.hold(run(1), 0)
    node.is_away = False
    direct = node.direct()
    assert isinstance(direct.reserve_given(run(2), gpus(0), node.seen()), BlockedGpu)
    assert direct.reserve_count(run(2), 4, node.seen()) == TooFewGpus(4, 3, 0, 0, 0, 0)
    assert direct.reserve_count(run(2), 3, node.seen()) == GrantedGpus(gpus(1, 2, 3))
    assert node.shown() == {**dict.fromkeys(gpus(1, 2, 3), run(2).owner), uuid(0): run(1).owner}


def test_a_heartbeat_restores_what_the_store_has_lost(node: Node) -> None:
    node.hold(run(1), 0)
    agent = node.agent()
    agent.read_nodes([node.name])
    node.set_store_back()
    assert agent.renew(node.name, run(1).owner) == [uuid(0)]
    assert node.in_store() == {uuid(0): run(1).owner}


def test_a_heartbeat_learns_what_was_released_in_the_store(node: Node) -> None:
    node.hold(run(1), 0)
    agent = node.agent()
    agent.read_nodes([node.name])
    node.direct().release(node.name, run(1).owner, "needed", by="root")
    assert agent.renew(node.name, run(1).owner) == []
    assert node.in_book() == {}


def test_what_processes_an_owner_has_the_book_knows(node: Node) -> None:
    node.hold(run(1), 0)
    node.agent().renew(node.name, run(1).owner, [ProcessId(5, 6)])
    node.set_store_back()
    (view,) = node.agent().read_nodes([node.name])
    assert view.reservations[uuid(0)].claim.processes == (ProcessId(5, 6),)


def test_a_release_is_for_the_grant_that_was_seen(node: Node) -> None:
    """A reaper decides late."""
    node.hold(run(1), 0)
    reaper = node.agent()
    reaper.read_nodes([node.name])
    node.agent().release(node.name, run(1).owner, "end")
    node.hold(run(1), 1)
    assert reaper.release(node.name, run(1).owner, "its processes are gone") == []
    assert node.shown() == {uuid(1): run(1).owner}


def test_places_in_the_queue_outlast_the_store(node: Node) -> None:
    node.hold(run(9), 0, 1, 2, 3)
    for number in (1, 2):
        node.agent().join_queue(node.name, waiter(run(number)))
    node.is_away = True
    assert node.agent().join_queue(node.name, waiter(run(3))) == 3
    node.agent().release(node.name, run(9).owner, "end")
    assert node.agent().reserve_count(run(2), 1, node.seen(), QUEUES) == QueuePosition(2)
    assert node.agent().reserve_count(run(1), 1, node.seen(), QUEUES) == GrantedGpus(gpus(0))
    node.is_away = False
    node.set_store_back()
    node.agent().renew_queue()
    assert [one.owner for one in node.store.read_nodes([node.name])[0].queue] == ["run:2", "run:3"]


def test_everybody_sees_the_nodes_queue(node: Node) -> None:
    def in_store() -> list[str]:
        return [one.owner for one in node.store.read_nodes([node.name])[0].queue]

    for number in (1, 2, 3):
        node.agent().join_queue(node.name, waiter(run(number)))
    node.direct().join_queue(node.name, waiter(run("direct")))
    assert in_store() == ["run:1", "run:2", "run:3", "run:direct"]
    node.agent().move_to_end("run:1")
    assert in_store() == ["run:2", "run:3", "run:direct", "run:1"]
    node.agent().leave_queue(node.name, ["run:2"], "gave up")
    assert in_store() == ["run:3", "run:direct", "run:1"]
    assert [one.owner for one in node.agent().read_nodes([node.name])[0].queue] == [
        "run:3",
        "run:1",
        "run:direct",
    ]
    node.agent().leave_queue(node.name, ["run:direct", "run:3"], "gave up")
    assert in_store() == ["run:1"]


def test_all_nodes_are_read_with_this_ones_book(node: Node) -> None:
    node.is_away = True
    node.hold(run(1), 0)
    node.is_away = False
    other = f"{node.name}-b"
    node.store.reserve_count(run(2), 1, observation(other))
    for asked in (None, [other, node.name]):
        agent = node.agent()
        views = {view.node: view for view in agent.read_nodes(asked)}
        assert {gpu for gpu in views[node.name].reservations} == {uuid(0)}
        assert {gpu for gpu in views[other].reservations} == {uuid(0)}


@pytest.mark.slow
@pytest.mark.parametrize("is_away", [False, True], ids=["store", "no store"])
def test_of_many_at_once_as_many_are_served_as_there_are_gpus(node: Node, is_away: bool) -> None:
    """Jobs, runs and reservations; each in a process of its own, with its own connection."""
    node.is_away = is_away
    claims = [make(number) for number in range(4) for make in (job, run, manual)]

    def ask(claim: Claim) -> None:
        node.store = RedisLedger(StoreConfig(url=shared_server().url), Role.WRITE)
        seen = observation(node.name, age_s=-1000.0)
        granted = isinstance(node.agent().reserve_count(claim, 1, seen), GrantedGpus)
        os._exit(0 if granted else 3)

    context = multiprocessing.get_context("fork")
    asking = [context.Process(target=ask, args=(claim,)) for claim in claims]
    for process in asking:
        process.start()
    for process in asking:
        process.join()
    assert sorted(process.exitcode or 0 for process in asking) == [0] * 4 + [3] * 8
    winners = {claim.owner for claim, one in zip(claims, asking, strict=True) if not one.exitcode}
    assert set(node.in_book().values()) == winners
    node.is_away = False
    node.agent().read_nodes([node.name])
    assert node.in_store() == node.in_book()


def test_a_grant_stands_whatever_its_queue_is(node: Node) -> None:
    (node.place / "queue.json").mkdir()
    node.hold(run(1), 0)
    assert node.in_book() == node.in_store() == {uuid(0): run(1).owner}
    assert [one.split()[0] for one in node.told] == ["event=no-queue"]
    with pytest.raises(NodeStateError, match="queue"):
        node.agent().reserve_count(run(2), 1, node.seen(), QUEUES)


def test_the_releases_before_are_known_with_the_user(node: Node) -> None:
    node.hold(replace(run(1), user="ann"), 2)
    node.agent().release(node.name, run(1).owner, "end")
    mine = GrantOptions(affinity=True)
    assert node.agent().reserve_count(run(2), 1, node.seen(), mine) == GrantedGpus(gpus(2))


def test_a_book_that_knows_jobs_alone_is_read(node: Node) -> None:
    """The former release's: what people hold, the store decides then."""
    node.hold(job(1), 0)
    node.hold(run(1), 1)
    data = json.loads((node.place / "book.json").read_text())
    # What that release reads as its own.
    assert data["own"] == [job(1).owner]
    for key in ("own_people", "released_by", "ended"):
        del data[key]
    (node.place / "book.json").write_text(json.dumps(data))
    assert node.shown() == {uuid(0): job(1).owner, uuid(1): run(1).owner}
    node.store.release(node.name, run(1).owner, "end")
    assert node.shown() == node.in_book() == {uuid(0): job(1).owner}
