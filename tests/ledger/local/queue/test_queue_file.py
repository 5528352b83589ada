"""The node's own queue: who is before whom, whatever happens to its file and its processes."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_samples import run, waiter

from canhazgpu.errors import NodeStateError
from canhazgpu.ledger.local.queue.queue_file import QUEUE_FILE, QueueFile
from canhazgpu.ledger.local.queue.queued_request import QueuedRequest


class Node:
    """One node's directory; its uptime is set."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.told: list[str] = []
        self.uptime = 100.0

    def queue(self, node: str = "n1", boot: str = "b") -> QueueFile:
        """What another process of the node opens."""
        return QueueFile(self.place, node, boot, self.told.append, lambda: self.uptime)

    def owners(self) -> list[str]:
        return [one.owner for one in self.queue().entries()]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "state")


def entry(number: int | str, ends_at: float | None = None, count: int = 1) -> QueuedRequest:
    waiting = waiter(run(number), count=count)
    return QueuedRequest(replace(waiting, since=5.0, renewed_at=5.0), ends_at)


def test_a_missing_file_is_an_empty_queue(node: Node) -> None:
    assert node.queue().entries() == ()
    assert node.queue().leave(["run:1"]) == []
    node.queue().move_to_end("run:1")
    assert not (node.place / QUEUE_FILE).exists()


def test_waiters_stand_in_the_order_of_their_coming(node: Node) -> None:
    assert [node.queue().join(entry(one)) for one in (3, 1, 2)] == [1, 2, 3]
    assert [node.queue().join(entry(one)) for one in (1, 2, 3)] == [2, 3, 1]
    assert node.owners() == ["run:3", "run:1", "run:2"]


def test_an_entry_is_read_as_it_was_written(node: Node) -> None:
    given = entry("é", 107.5, count=2)
    node.queue().join(given)
    assert node.queue().entries() == (given,)


def test_a_heartbeat_keeps_since_when_one_waits(node: Node) -> None:
    first = entry(1, 200.0)
    node.queue().join(first)
    later = replace(first.waiter, since=9.0, renewed_at=9.0)
    node.queue().join(QueuedRequest(later, 200.0))
    (known,) = node.queue().entries()
    assert known == replace(first, waiter=replace(later, since=5.0))


def test_who_asks_anew_keeps_its_place(node: Node) -> None:
    for number in (1, 2):
        node.queue().join(entry(number, 200.0, count=4))
    assert node.queue().join(entry(1, 300.0, count=2)) == 1
    first = node.queue().entries()[0]
    assert (first.waiter.count, first.ends_at_uptime_s) == (2, 300.0)


def test_who_leaves_is_named(node: Node) -> None:
    for number in (1, 2, 3):
        node.queue().join(entry(number))
    assert [one.owner for one in node.queue().leave(["run:3", "run:1", "run:9"])] == [
        "run:1",
        "run:3",
    ]
    assert node.owners() == ["run:2"]


def test_one_lets_all_others_pass(node: Node) -> None:
    for number in (1, 2, 3):
        node.queue().join(entry(number, count=number))
    node.queue().move_to_end("run:1")
    assert node.owners() == ["run:2", "run:3", "run:1"]
    assert node.queue().entries()[2] == entry(1)


def test_a_waiter_whose_time_is_over_has_left(node: Node) -> None:
    node.queue().join(entry(1, 150.0))
    node.queue().join(entry(2))
    node.uptime = 149.9
    assert node.owners() == ["run:1", "run:2"]
    node.uptime = 150.0
    assert node.owners() == ["run:2"]
    assert node.queue().join(entry(2)) == 1


def test_a_reboot_empties_the_queue(node: Node) -> None:
    node.queue().join(entry(1))
    assert node.queue(boot="c").entries() == ()


def test_a_waiter_of_an_earlier_boot_has_left(node: Node) -> None:
    node.queue(boot="c").join(entry(1))
    assert node.queue(boot="c").entries() == ()


@pytest.mark.parametrize(
    "content",
    ["", "no json", "[]", "7", '{"format": 2, "node": "n1"}', '{"a":' * 2000],
)
def test_what_is_no_queue_is_logged_and_empty(node: Node, content: str) -> None:
    node.queue().join(entry(1))
    (node.place / QUEUE_FILE).write_text(content)
    assert node.queue().entries() == ()
    assert [one.split()[0] for one in node.told] == ["event=queue-unreadable"]
    assert node.queue().join(entry(2)) == 1
    assert node.owners() == ["run:2"]


@pytest.mark.parametrize("garbled", ["waiter", "ends_at_uptime_s"])
def test_an_entry_that_cannot_be_read_makes_no_queue(node: Node, garbled: str) -> None:
    node.queue().join(entry(1))
    data = json.loads((node.place / QUEUE_FILE).read_text())
    data["waiting"][0][garbled] = "x"
    (node.place / QUEUE_FILE).write_text(json.dumps(data))
    assert node.queue().entries() == ()
    assert len(node.told) == 1


def test_another_nodes_queue_is_none(node: Node) -> None:
    node.queue("n2").join(entry(1))
    assert node.queue("n1").entries() == ()


def test_nobody_but_its_owner_reads_what_is_asked_for(node: Node) -> None:
    node.queue().join(entry(1))
    assert (node.place / QUEUE_FILE).stat().st_mode & 0o777 == 0o600


def test_a_place_that_cannot_be_written_is_an_error(node: Node) -> None:
    node.place.write_text("a file")
    with pytest.raises(NodeStateError, match="queue"):
        node.queue().join(entry(1))


def join_some(place: Path, first: int, count: int) -> None:
    for number in range(first, first + count):
        Node(place).queue().join(entry(number))


@pytest.mark.slow
def test_those_who_join_at_once_all_have_a_place(node: Node) -> None:
    context = multiprocessing.get_context("fork")
    joining = [context.Process(target=join_some, args=(node.place, 10 * n, 10)) for n in range(4)]
    for process in joining:
        process.start()
    for process in joining:
        process.join()
    assert [process.exitcode for process in joining] == [0] * 4
    owners = node.owners()
    assert len(owners) == len(set(owners)) == 40
    for n in range(4):
        mine = [f"run:{number}" for number in range(10 * n, 10 * n + 10)]
        assert [one for one in owners if one in mine] == mine
