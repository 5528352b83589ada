"""A run holds its GPUs until its last process has ended, whatever is done to whom."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts.running_agent import is_alive
from hosts.watched_runs import ALL_GPUS, NOBODY, NODE, WatchedNode
from polling import poll_until
from servers.private_redis import PrivateRedis, any_binary

from canhazgpu.ledger.grant_answers import GrantedGpus
from canhazgpu.ledger.values import Claim
from canhazgpu.node.processes import identify_process

pytestmark = pytest.mark.slow
FOREVER = "exec sleep 3600"


@pytest.fixture
def node(node_directory: Path) -> Iterator[WatchedNode]:
    with (
        PrivateRedis(binary=any_binary()) as server,
        WatchedNode(node_directory, server).ending() as it,
    ):
        yield it


@pytest.mark.parametrize("uid", [0, NOBODY])
def test_the_gpus_are_released_when_the_command_ends(node: WatchedNode, uid: int) -> None:
    with node.agent() as agent:
        run = node.start(FOREVER, 0, 1, uid=uid)
        agent.helper()
        assert set(node.holders()) == {0, 1}
        run.process.kill()
        poll_until(lambda: node.holders() == {})
        assert node.releases() == [(run.owner, "run ended")] * 2
        poll_until(lambda: not node.files.owners())
        poll_until(lambda: agent.children() == [])
        assert agent.status()["faults"] == []


def test_a_run_that_ended_before_anybody_watched_is_released(node: WatchedNode) -> None:
    with node.agent():
        pass
    run = node.start("exit 0", 0)
    run.process.wait()
    with node.agent():
        poll_until(lambda: node.holders() == {})


def test_the_agent_keeps_the_reservation_beside_the_command(node: WatchedNode) -> None:
    """So nobody finds it dead between the command's end and the look for what it left."""
    with node.agent() as agent:
        run = node.start(FOREVER, 0)
        keeper = identify_process(agent.process.pid)
        poll_until(lambda: set(node.processes(0)) == {run.record.command, keeper})


def test_what_is_left_in_the_background_keeps_the_gpus(node: WatchedNode) -> None:
    with node.agent() as agent:
        run = node.start("sleep 3600 & exit 0", 0, uid=NOBODY)
        run.process.wait()
        poll_until(lambda: run.record.command not in node.processes(0))
        (left,) = set(node.processes(0)) - {identify_process(agent.process.pid)}
        assert node.holders() == {0: run.owner}
        os.kill(left.pid, signal.SIGKILL)
        poll_until(lambda: node.holders() == {})
        assert agent.status()["faults"] == []


def test_a_process_of_another_user_does_not_count(node: WatchedNode) -> None:
    """Not even with the marker: somebody who was given it would hold another's GPUs."""
    with node.agent():
        run = node.start(FOREVER, 0, uid=NOBODY)
        marker = {"CANHAZGPU_OWNER": run.record.marker}
        with subprocess.Popen(["/bin/sleep", "3600"], env=marker, user=1) as other:
            run.process.kill()
            poll_until(lambda: node.holders() == {})
            other.kill()


def test_a_command_with_another_users_rights_is_still_the_run(node: WatchedNode) -> None:
    """A set-user-ID program: here the shell of root's run becomes nobody's."""
    with node.agent() as agent:
        become = f"import os, time; os.setuid({NOBODY}); print(flush=True); time.sleep(3600)"
        run = node.start(f"exec {sys.executable} -c '{become}'", 0)
        agent.helper()
        poll_until(lambda: Path(f"/proc/{run.process.pid}").stat().st_uid == NOBODY)
        keeper = identify_process(agent.process.pid)
        poll_until(lambda: keeper in node.processes(0))
        assert node.holders() == {0: run.owner}
        run.process.kill()
        poll_until(lambda: node.holders() == {})


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_watcher_that_is_killed_or_stopped_is_followed_by_another(
    node: WatchedNode, number: signal.Signals
) -> None:
    with node.agent() as agent:
        run = node.start(FOREVER, 0)
        first = agent.helper()
        os.kill(first, number)
        poll_until(lambda: not is_alive(first))
        poll_until(lambda: any(one != first for one in agent.children()))
        assert node.holders() == {0: run.owner}
        run.process.kill()
        poll_until(lambda: node.holders() == {})


def test_the_next_agent_goes_on_with_the_same_time(node: WatchedNode, tmp_path: Path) -> None:
    with node.agent() as agent:
        run = node.start(FOREVER, 0, timeout_s=8.0)
        first = agent.helper()
        agent.process.kill()
        agent.process.wait()
        poll_until(lambda: not is_alive(first))
    assert run.process.poll() is None
    with node.agent():
        assert run.process.wait(60) == -signal.SIGTERM
        poll_until(lambda: node.holders() == {})


def test_a_run_is_ended_at_its_time_with_all_its_processes(
    node: WatchedNode, tmp_path: Path
) -> None:
    messages = node.users_file(NOBODY)
    with node.agent() as agent:
        script = "trap '' TERM; (trap '' TERM; sleep 3600; sleep 3600) & sleep 3600; sleep 3600"
        run = node.start(script, 0, uid=NOBODY, timeout_s=1.0, stderr=messages)
        poll_until(lambda: "the run's time of 1 s is over; ending it" in messages.read_text())
        # Those that ignore SIGTERM are killed.
        assert run.process.wait(60) == -signal.SIGKILL
        poll_until(lambda: node.holders() == {})
        assert agent.status()["faults"] == []


@pytest.mark.parametrize("number", [signal.SIGSTOP, None])
def test_a_run_that_is_stopped_is_ended_at_its_time_too(
    node: WatchedNode, number: signal.Signals | None
) -> None:
    with node.agent():
        run = node.start(FOREVER, 0, uid=NOBODY, timeout_s=1.0)
        if number:
            run.process.send_signal(number)
        run.process.wait(60)
        poll_until(lambda: node.holders() == {})


def test_a_reservation_that_the_store_lost_is_restored(node: WatchedNode) -> None:
    with node.agent() as agent:
        run = node.start(FOREVER, 0, 1)
        node.ledger().renew(NODE, run.owner)
        node.server.client().flushall()
        poll_until(lambda: node.holders() == {0: run.owner, 1: run.owner})
        assert agent.status()["faults"] == []


def test_a_reservation_that_somebody_took_is_told(node: WatchedNode) -> None:
    messages = node.users_file(NOBODY)
    with node.agent():
        run = node.start(FOREVER, 0, uid=NOBODY, stderr=messages)
        node.ledger().release(NODE, run.owner, "maintenance", by="root")
        told = "canhazgpu: the reservation is lost: root released it: maintenance\n"
        poll_until(lambda: messages.read_text() == told)
        # It goes on without its GPUs, and that is told once.
        assert run.process.poll() is None
        run.process.kill()
        poll_until(lambda: not node.files.owners())
        assert messages.read_text() == told


def test_a_run_that_ends_when_lost_is_ended(node: WatchedNode) -> None:
    with node.agent():
        run = node.start(FOREVER, 0, uid=NOBODY, ends_when_lost=True)
        node.ledger().release(NODE, run.owner, "maintenance", by="root")
        assert run.process.wait(60) == -signal.SIGTERM


def test_root_writes_to_no_file_that_the_user_may_not_write(node: WatchedNode) -> None:
    """Whatever is open as standard error: here what root alone may write."""
    target = node.users_file(0)
    with node.agent():
        run = node.start(FOREVER, 0, uid=NOBODY, ends_when_lost=True, stderr=target)
        node.ledger().release(NODE, run.owner, "maintenance", by="root")
        assert run.process.wait(60) == -signal.SIGTERM
    assert target.read_text() == ""


def test_a_terminal_or_pipe_that_nobody_reads_keeps_nobody(node: WatchedNode) -> None:
    """The user's FIFO is full."""
    fifo = node.directory / "fifo"
    os.mkfifo(fifo)
    os.chown(fifo, NOBODY, NOBODY)
    reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(reader, b"x" * 4096)
    with node.agent() as agent:
        run = node.start(FOREVER, 0, uid=NOBODY, ends_when_lost=True, stderr=fifo)
        node.ledger().release(NODE, run.owner, "maintenance", by="root")
        assert run.process.wait(60) == -signal.SIGTERM
        poll_until(lambda: agent.children() == [])
        assert agent.status()["faults"] == []
    os.close(reader)


def test_a_store_that_is_away_keeps_no_run_and_no_release(node: WatchedNode) -> None:
    with node.agent() as agent:
        first = node.start(FOREVER, 0)
        second = node.start(FOREVER, 1, uid=NOBODY, timeout_s=3.0)
        agent.helper()
        node.server.pause()
        # Times are kept, and ends are seen.
        assert second.process.wait(60) == -signal.SIGTERM
        first.process.kill()
        first.process.wait()
        node.server.resume()
        poll_until(lambda: node.holders() == {})
        poll_until(lambda: agent.children() == [])
        assert agent.status()["faults"] == []


def test_many_runs_end_together(node: WatchedNode) -> None:
    with node.agent() as agent:
        runs = [node.start("exec sleep 0.3", number) for number in range(ALL_GPUS)]
        poll_until(lambda: node.holders() == {})
        assert {owner for owner, _ in node.releases()} == {one.owner for one in runs}
        poll_until(lambda: agent.children() == [])
        assert agent.status()["faults"] == []


def test_a_gpu_given_to_somebody_else_is_not_released_for_him(node: WatchedNode) -> None:
    with node.agent() as agent:
        run = node.start(FOREVER, 0)
        agent.helper()
        node.ledger().release(NODE, run.owner, "maintenance", by="root")
        later = Claim("job:c1:7:0", "slurm", "ann", 1000, "7")
        granting = node.own_ledger()
        granted = granting.reserve_given(later, node.uuids(0), node.observe())
        assert isinstance(granted, GrantedGpus)
        assert granting.commit(later.owner) is None
        run.process.kill()
        poll_until(lambda: not node.files.owners())
        assert node.holders() == {0: later.owner}
