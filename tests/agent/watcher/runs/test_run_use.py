"""What runs made of their GPUs, where the node's agent watches them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts.watched_runs import ALL_GPUS, NOBODY, NODE, WatchedNode
from polling import poll_until
from servers.private_redis import PrivateRedis, any_binary

from canhazgpu.ledger.journal_entries import USE
from canhazgpu.ledger.usage import DAY_S
from canhazgpu.ledger.values import Event
from canhazgpu.report.held_time import TimeSpan
from canhazgpu.report.node_rows import UseRow, used_on_node
from canhazgpu.status.history.owner_history import history_lines

pytestmark = pytest.mark.slow
FOREVER = "exec sleep 3600"


@pytest.fixture
def node(node_directory: Path) -> Iterator[WatchedNode]:
    with PrivateRedis(binary=any_binary()) as server:
        watched = WatchedNode(node_directory, server, accounting="auto")
        for gpu in watched.gpus:
            gpu.set("accounting_mode", 1)
        with watched.ending() as it:
            yield it


def notes(node: WatchedNode) -> list[Event]:
    return [one for one in node.ledger().history(NODE, 0.0) if one.kind == USE]


def counted(node: WatchedNode) -> tuple[UseRow, ...]:
    read = node.ledger().read_usage(1, [NODE])
    (usage,) = read.counted
    found = used_on_node(usage, TimeSpan(read.first_day * DAY_S, read.read_at))
    assert found is not None
    return tuple(found.uses)


@pytest.mark.parametrize("uid", [0, NOBODY])
def test_a_run_that_was_killed_is_told_of_by_the_driver(node: WatchedNode, uid: int) -> None:
    with node.agent() as agent:
        run = node.start(FOREVER, 0, 1, uid=uid)
        agent.helper()
        pid = run.process.pid
        node.gpus[0].account(
            pid, busy_percent=100, peak_mb=40_000, started_at=time.time(), ran_s=None
        )
        run.process.kill()
        run.process.wait()
        poll_until(lambda: notes(node))
        poll_until(lambda: agent.children() == [])
        assert agent.status()["faults"] == []
    (note,) = notes(node)
    assert note.claim is not None
    assert (note.claim.owner, note.claim.user) == (run.owner, "somebody")
    used, unused = note.facts["use"]["driver"]
    assert (used[0], used[1], used[3]) == ("0", 40_000, pytest.approx(100, abs=100))
    assert used[3] > 0
    assert unused == ["1", None, used[2], None]
    ((key, known, busy, *_),) = counted(node)
    assert key == "somebody\trun"
    assert known == 2 * note.facts["use"]["held_ms"]
    assert 0 < busy <= known / 2
    lines = list(history_lines(NODE, node.ledger().history(NODE, 0.0)))
    place = next(i for i, line in enumerate(lines) if line.endswith("use of its GPUs"))
    assert lines[place + 1].strip().startswith("GPU 0: peak 39 of ")
    assert lines[place + 2].strip() == "GPU 1: never used"


def test_what_others_still_do_on_the_gpu_is_not_the_runs(node: WatchedNode) -> None:
    with node.agent() as agent:
        run = node.start(FOREVER, 0)
        agent.helper()
        # Of a process that lives, which is none of the run's any more.
        node.gpus[0].account(
            os.getpid(), busy_percent=100, peak_mb=70_000, started_at=time.time(), ran_s=None
        )
        run.process.kill()
        run.process.wait()
        poll_until(lambda: notes(node))
    (note,) = notes(node)
    assert note.facts["use"]["driver"] == [
        ["0", None, node.seen.scan.gpus[0].memory_total_mb, None]
    ]


def test_where_the_driver_keeps_nothing_the_scans_tell(node: WatchedNode) -> None:
    node.gpus[0].set("accounting_mode", 0)
    with node.agent() as agent:
        run = node.start(FOREVER, 0)
        agent.helper()
        run.process.kill()
        run.process.wait()
        poll_until(lambda: notes(node))
    (note,) = notes(node)
    ((place, idle_s, held_s),) = note.facts["use"]["scans"]
    assert (place, idle_s <= held_s, "driver" in note.facts["use"]) == ("0", True, False)
    assert counted(node) == ()


def test_of_many_runs_that_end_at_once_each_is_told_of_once(node: WatchedNode) -> None:
    with node.agent() as agent:
        runs = [node.start(FOREVER, index) for index in range(ALL_GPUS)]
        agent.helper()
        for one in runs:
            one.process.kill()
            one.process.wait()
        poll_until(lambda: len(notes(node)) == len(runs))
        poll_until(lambda: agent.children() == [])
    assert {one.claim.owner for one in notes(node) if one.claim} == {one.owner for one in runs}
    assert len(notes(node)) == len(runs)
    ((_, known, busy, *_),) = counted(node)
    assert (known > 0, busy) == (True, 0)


def test_a_driver_that_hangs_delays_no_release(node: WatchedNode) -> None:
    node.waits_for_use = False
    with node.agent() as agent:
        run = node.start(FOREVER, 0)
        agent.helper()
        node.driver.inject("nvmlDeviceGetAccountingPids", hang=True)
        run.process.kill()
        run.process.wait()
        poll_until(lambda: node.holders() == {})
        poll_until(lambda: notes(node))
        poll_until(lambda: agent.children() == [])
    assert node.releases() == [(run.owner, "run ended")]
    (note,) = notes(node)
    assert list(note.facts["use"]) == ["scans"]
    events = [one.kind for one in node.ledger().history(NODE, 0.0)]
    assert events.index("release") < events.index(USE)


def test_without_the_key_nothing_is_told(node: WatchedNode) -> None:
    node.accounting = "off"
    with node.agent() as agent:
        run = node.start(FOREVER, 0)
        agent.helper()
        run.process.kill()
        run.process.wait()
        poll_until(lambda: node.holders() == {})
        poll_until(lambda: agent.children() == [])
    assert notes(node) == []
