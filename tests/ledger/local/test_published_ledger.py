"""What a node's hooks granted without the store, people's commands heed, in whatever order."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_samples import job, new_node_name, observation, uuid, wait_for_next_ms
from ledgers.hook_ledger import CommittingLedger, hook_ledger
from servers.private_redis import PrivateRedis

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import BookUnknownError, NodeStateError, error_text
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus, TooFewGpus
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.published_book import PUBLISHED_FILE, read_published
from canhazgpu.ledger.local.book.served_boot import ServedBoot
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.published_ledger import PublishedLedger
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.port import GrantOptions, Ledger, Observation
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim
from canhazgpu.ledger.wait_budget import WaitBudget

RUN = Claim("run:a", "run", "eve", 1002)
PERSONS = GrantOptions(queues=True)
GPUS = 4


class Node:
    """A node: what its hooks do, and the ledger of a person's command on it."""

    def __init__(self, place: Path, url: str) -> None:
        self.name = new_node_name()
        self.place = place
        self.url = url

    def open_store(self, budget: WaitBudget | None = None) -> Ledger:
        return RedisLedger(StoreConfig(url=self.url, timeout_s=5.0), Role.WRITE, budget)

    def hook(self) -> CommittingLedger:
        told: list[str] = []
        book = BookFile(self.place, self.name, "b", JobRecords(self.place), told.append)
        reconciler = Reconciler(self.name, book, told.append, lambda _: False)
        outage = StoreOutage(self.place, 60.0)
        return hook_ledger(self.name, self.open_store, book, outage, reconciler, told.append)

    def person(self, store: Ledger | None = None) -> Ledger:
        return PublishedLedger(
            self.name,
            store or self.open_store(),
            lambda: read_published(self.place, self.name, "b"),
        )

    def seen(self) -> Observation:
        wait_for_next_ms()
        return observation(self.name, GPUS)

    def published(self) -> Any:
        return json.loads((self.place / PUBLISHED_FILE).read_text())

    def owners(self) -> dict[str, str]:
        (view,) = self.open_store().read_nodes([self.name])
        return {gpu: one.claim.owner for gpu, one in view.reservations.items()}


@pytest.fixture
def node(restartable_server: PrivateRedis, tmp_path: Path) -> Iterator[Node]:
    yield Node(tmp_path, restartable_server.url)


def grant_alone(node: Node, server: PrivateRedis, number: int, *gpus: int) -> None:
    """Have a hook grant GPUs while the store is away, which then is back."""
    server.kill()
    granted = tuple(uuid(gpu) for gpu in gpus)
    hook = node.hook()
    assert hook.reserve_given(job(number), granted, node.seen()) == GrantedGpus(granted)
    assert hook.without_store
    server.start()


def test_a_run_gets_only_what_the_node_does_not_hold(
    node: Node, restartable_server: PrivateRedis
) -> None:
    grant_alone(node, restartable_server, 1, 0, 2)
    person = node.person()
    assert isinstance(person.reserve_count(RUN, 3, node.seen(), PERSONS), TooFewGpus)
    blocked = person.reserve_given(RUN, [uuid(1), uuid(2)], node.seen(), PERSONS)
    assert isinstance(blocked, BlockedGpu)
    assert (blocked.gpu, blocked.why) == (uuid(2), "reserved")
    assert blocked.holder is not None and blocked.holder.claim == job(1)
    assert node.owners() == {}
    answer = person.reserve_count(RUN, 2, node.seen(), PERSONS)
    assert isinstance(answer, GrantedGpus)
    assert set(answer.gpus) == {uuid(1), uuid(3)}


def test_who_reads_sees_the_nodes_jobs(node: Node, restartable_server: PrivateRedis) -> None:
    grant_alone(node, restartable_server, 1, 0)
    (view,) = node.person().read_nodes([node.name])
    assert {gpu: one.claim.owner for gpu, one in view.reservations.items()} == {
        uuid(0): job(1).owner
    }
    (other,) = node.person().read_nodes(["elsewhere"])
    assert other.reservations == {}


def shown(node: Node) -> dict[str, str]:
    (view,) = node.person().read_nodes([node.name])
    return {gpu: one.claim.owner for gpu, one in view.reservations.items()}


def grant_and_lose_store(node: Node, server: PrivateRedis, *gpus: int) -> CommittingLedger:
    """Have the store know of a job's GPUs; return a hook that cannot tell it any more."""
    granted = tuple(uuid(gpu) for gpu in gpus)
    assert node.hook().reserve_given(job(1), granted, node.seen()) == GrantedGpus(granted)
    assert set(node.owners()) == set(granted)
    server.kill()
    return node.hook()


@pytest.mark.parametrize("released", [(), (0, 1), (1,)], ids=["all", "both", "one"])
def test_what_the_node_has_released_is_not_shown(
    node: Node, restartable_server: PrivateRedis, released: tuple[int, ...]
) -> None:
    hook = grant_and_lose_store(node, restartable_server, 0, 1)
    gpus = [uuid(gpu) for gpu in released]
    assert hook.release(node.name, job(1).owner, "epilog", gpus)
    restartable_server.start()
    assert set(node.owners()) == {uuid(0), uuid(1)}
    left = {uuid(0), uuid(1)} - set(gpus or (uuid(0), uuid(1)))
    assert set(shown(node)) == left
    # The store hears of it, and nothing is left to be told.
    node.hook().read_nodes([node.name])
    assert set(node.owners()) == left == set(shown(node))
    assert node.published()["released"] == {}


def test_what_the_node_has_granted_again_is_shown(
    node: Node, restartable_server: PrivateRedis
) -> None:
    hook = grant_and_lose_store(node, restartable_server, 0, 1)
    assert hook.release(node.name, job(1).owner, "epilog")
    assert hook.reserve_given(job(1), [uuid(1)], node.seen()) == GrantedGpus((uuid(1),))
    restartable_server.start()
    assert shown(node) == {uuid(1): job(1).owner}


def test_who_came_and_went_without_the_store_is_not_told_of(
    node: Node, restartable_server: PrivateRedis
) -> None:
    hook = grant_and_lose_store(node, restartable_server, 0)
    for number in range(2, 5):
        assert isinstance(hook.reserve_given(job(number), [uuid(1)], node.seen()), GrantedGpus)
        assert hook.release(node.name, job(number).owner, "epilog")
    assert node.published()["released"] == {}
    restartable_server.start()
    assert shown(node) == {uuid(0): job(1).owner}


def test_the_file_of_the_former_release_is_read(
    node: Node, restartable_server: PrivateRedis
) -> None:
    grant_alone(node, restartable_server, 1, 0)
    data = node.published()
    del data["released"]
    (node.place / PUBLISHED_FILE).write_text(json.dumps(data))
    assert shown(node) == {uuid(0): job(1).owner}


def test_the_next_hook_hears_a_store_that_is_back_at_once(
    node: Node, restartable_server: PrivateRedis
) -> None:
    grant_alone(node, restartable_server, 1, 0)
    answer = node.person().reserve_given(RUN, [uuid(1)], node.seen(), PERSONS)
    assert answer == GrantedGpus((uuid(1),))
    hook = node.hook()
    assert isinstance(hook.reserve_given(job(2), [uuid(1)], node.seen()), BlockedGpu)
    assert hook.without_store == ""
    assert node.owners() == {uuid(0): job(1).owner, uuid(1): RUN.owner}
    assert not (node.place / "store-outage").exists()
    assert node.published()["store_away_since"] is None


@pytest.mark.parametrize("asks", ["count", "given"])
def test_what_a_hook_took_meanwhile_is_given_back(
    node: Node, restartable_server: PrivateRedis, asks: str
) -> None:
    # The hook does not reach the store, while the person does.
    hooks_node = Node(node.place, f"unix://{node.place}/none.sock")
    hooks_node.name = node.name

    def grants_then_the_hook_does(operation: Callable[..., Any]) -> Callable[..., Any]:
        def reserve(*given: Any) -> Any:
            answer = operation(*given)
            hooks_node.hook().reserve_given(job(1), [uuid(0), uuid(1)], node.seen())
            return answer

        return reserve

    store = node.open_store()
    store.reserve_count = grants_then_the_hook_does(store.reserve_count)  # type: ignore[method-assign]
    store.reserve_given = grants_then_the_hook_does(store.reserve_given)  # type: ignore[method-assign]
    person = node.person(store)
    answer: object
    if asks == "count":
        answer = person.reserve_count(RUN, GPUS, node.seen(), PERSONS)
        assert answer == TooFewGpus(GPUS, GPUS - 1, 0, 0, 0, stale=1)
    else:
        answer = person.reserve_given(RUN, [uuid(1), uuid(2)], node.seen(), PERSONS)
        assert isinstance(answer, BlockedGpu)
    assert node.owners() == {}


def test_everybody_may_read_it_and_only_its_owner_write(
    node: Node, restartable_server: PrivateRedis
) -> None:
    grant_alone(node, restartable_server, 1, 0)
    assert stat.S_IMODE((node.place / PUBLISHED_FILE).stat().st_mode) == 0o644
    told = node.published()
    assert told["gpus"].keys() == {uuid(0)}
    assert told["gpus"][uuid(0)]["owners"] == [job(1).owner]
    assert told["gpus"][uuid(0)]["since"] > 0
    assert told["store_away_since"] > 0


def test_a_release_is_published(node: Node) -> None:
    node.hook().reserve_given(job(1), [uuid(0)], node.seen())
    assert node.published()["gpus"].keys() == {uuid(0)}
    assert node.published()["store_away_since"] is None
    node.hook().release(node.name, job(1).owner, "job ended")
    assert node.published()["gpus"] == {}


@pytest.mark.parametrize("change", ["mode", "owner", "boot", "node", "missing"])
def test_what_nobody_can_vouch_for_counts_for_nothing(node: Node, change: str) -> None:
    node.hook().reserve_given(job(1), [uuid(0)], node.seen())
    path, name, boot = node.place / PUBLISHED_FILE, node.name, "b"
    if change == "mode":
        path.chmod(0o646)
    elif change == "owner":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(path, 4242, -1)
    elif change == "boot":
        boot = "another"
    elif change == "node":
        name = "another"
    else:
        path.unlink()
    assert read_published(node.place, name, boot) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"node": "NODE", "boot_id": "b", "format": 2}', "\xff", "{" * 20000]
)
def test_what_cannot_be_read_is_no_free_gpu(node: Node, text: str) -> None:
    (node.place / PUBLISHED_FILE).write_text(text.replace("NODE", node.name))
    with pytest.raises(NodeStateError, match="not known which GPUs the node's jobs hold") as raised:
        node.person().reserve_count(RUN, 1, node.seen(), PERSONS)
    assert "canhazgpu-healthcheck" in error_text(raised.value)
    assert node.owners() == {}


def test_what_was_lost_is_no_free_gpu(node: Node, tmp_path: Path) -> None:
    node.hook().reserve_given(job(1), [uuid(0)], node.seen())
    served = ServedBoot(tmp_path / "lib", node.place, "b")
    served.note()
    assert read_published(node.place, node.name, "b", served) is not None
    (node.place / PUBLISHED_FILE).unlink()
    with pytest.raises(BookUnknownError, match="not known which GPUs of") as raised:
        read_published(node.place, node.name, "b", served)
    assert "canhazgpu-healthcheck" in error_text(raised.value)


@pytest.mark.parametrize("away", [False, True])
def test_a_health_check_writes_it_anew(
    node: Node, restartable_server: PrivateRedis, away: bool
) -> None:
    node.hook().reserve_given(job(1), [uuid(0)], node.seen())
    (node.place / PUBLISHED_FILE).write_text("garbage")
    if away:
        restartable_server.kill()
    node.hook().publish_scan(node.seen())
    published = read_published(node.place, node.name, "b")
    assert published is not None
    assert published.book.own_reservations().keys() == {uuid(0)}
    assert (published.store_away_since is not None) == away


def test_a_fifo_in_its_place_makes_nobody_wait(node: Node) -> None:
    os.mkfifo(node.place / PUBLISHED_FILE)
    assert read_published(node.place, node.name, "b") is None
