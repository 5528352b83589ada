"""Who waits gets its turn, whatever becomes of the watcher, the store and the others who wait."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest
from hosts.running_agent import is_alive
from hosts.waiting_node import Client, WaitingNode
from hosts.watched_runs import ALL_GPUS, NOBODY, NODE
from polling import poll_until

from canhazgpu.ledger.owner import MANUAL, RUN
from canhazgpu.ledger.user_limits import UserLimits

pytestmark = pytest.mark.slow
FOREVER = "exec sleep 3600"


def waits(node: WaitingNode, *clients: Client) -> None:
    """Wait until these are in the queue, in this order."""
    poll_until(lambda: node.queue() == [one.owner for one in clients])


def test_who_could_have_gpus_gets_them_at_once(node: WaitingNode) -> None:
    client = node.wait_for(2, uid=NOBODY)
    granted = client.until("granted")
    assert len(granted) == 2
    # The connection ends, the run is watched from now on, and nothing waits.
    assert client.next() == {}
    assert node.holders() == dict.fromkeys(granted, client.owner)
    assert node.files.owners() == {client.owner}
    assert node.queue() == []
    client.process.kill()
    poll_until(lambda: node.holders() == {})
    poll_until(lambda: node.watchers() == [])
    assert node.faults() == []


def test_a_waiter_gets_what_a_run_leaves(node: WaitingNode) -> None:
    run = node.start(FOREVER, *range(ALL_GPUS))
    client = node.wait_for(3)
    text = client.until("progress")
    assert text.startswith("waiting for 3 GPUs on n1")
    waits(node, client)
    run.process.kill()
    assert len(client.until("granted")) == 3
    assert node.faults() == []


def test_the_turn_is_first_come_first_served(node: WaitingNode) -> None:
    run = node.start(FOREVER, *range(ALL_GPUS - 1))
    first = node.wait_for(ALL_GPUS)
    waits(node, first)
    second = node.wait_for(1, uid=NOBODY)
    waits(node, first, second)
    # One is free, and is kept for the first.
    assert "position 2 of 2" in second.until("progress")
    run.process.kill()
    assert len(first.until("granted")) == ALL_GPUS
    first.process.kill()
    assert len(second.until("granted")) == 1


def test_however_many_wait_the_node_has_one_connection(node: WaitingNode) -> None:
    run = node.start(FOREVER, *range(ALL_GPUS))
    with node.server.client() as direct:
        # Those of this process.
        own = {one["id"] for one in direct.client_list()}

        def connections() -> int:
            gc.collect()  # this process looks at the queue, too
            return len({one["id"] for one in direct.client_list()} - own)

        first = node.wait_for(1)
        waits(node, first)
        poll_until(lambda: connections() == 1)
        others = [node.wait_for(ALL_GPUS, uid=NOBODY) for _ in range(12)]
        poll_until(lambda: len(node.queue()) == 13)
        # Between two looks there may be none.
        assert max(connections() for _ in range(30)) <= 1
        for one in (first, *others):
            one.process.kill()
        run.process.kill()
        poll_until(lambda: node.watchers() == [])
        poll_until(lambda: connections() == 0)


def test_a_reservation_by_hand_has_no_record_of_a_run(node: WaitingNode) -> None:
    client = node.wait_for(1, type_=MANUAL)
    client.until("granted")
    assert node.files.owners() == set()
    client.process.kill()
    poll_until(lambda: node.watchers() == [])
    assert list(node.holders().values()) == [client.owner]


def test_the_time_of_a_wait_ends(node: WaitingNode) -> None:
    node.start(FOREVER, *range(ALL_GPUS))
    noted = node.state_dir / "metrics" / "refused-requests"
    noted.parent.mkdir()
    client = node.wait_for(1, wait_s=1.5)
    assert client.until("refused")
    assert client.next() == {}
    poll_until(lambda: node.queue() == [])
    assert noted.read_text() == "busy\n"


def test_what_the_node_can_never_give_is_refused(node: WaitingNode) -> None:
    noted = node.state_dir / "metrics" / "refused-requests"
    noted.parent.mkdir()
    client = node.wait_for(ALL_GPUS + 1)
    assert f"{NODE} has" in client.until("refused")
    assert noted.read_text() == "never\n"
    poll_until(lambda: node.queue() == [])


def test_a_run_that_cannot_be_recorded_fails_and_keeps_nobody_waiting(node: WaitingNode) -> None:
    node.files.directory.parent.mkdir(exist_ok=True)
    if node.files.directory.exists():
        node.files.directory.rmdir()
    node.files.directory.touch()
    client = node.wait_for(1)
    assert "cannot keep the record of a run" in client.until("failed")
    assert node.wait_for(1, type_=MANUAL).until("granted")
    poll_until(lambda: client.owner not in node.holders().values())


def test_who_names_no_gpu_of_the_node_is_told(node: WaitingNode) -> None:
    from canhazgpu.gpu.ids import parse_gpu_ids

    client = node.wait_for(1, selectors=parse_gpu_ids("77"))
    assert "77" in client.until("failed")
    other = node.wait_for(1)
    assert other.until("granted")


def test_who_would_wait_for_what_no_release_brings_gives_up(node: WaitingNode) -> None:
    for gpu in node.uuids(*range(ALL_GPUS)):
        node.ledger().quarantine(NODE, gpu, "broken", "root")
    client = node.wait_for(1, gives_up=True)
    assert "quarantined" in client.until("refused")


def test_who_is_obstructed_lets_others_pass(node: WaitingNode) -> None:
    (gpu,) = node.uuids(0)
    node.ledger().quarantine(NODE, gpu, "broken", "root")
    patient = node.wait_for(ALL_GPUS)
    waits(node, patient)
    other = node.wait_for(1, uid=NOBODY)
    assert len(other.until("granted")) == 1
    waits(node, patient)


@pytest.mark.parametrize("how", ["killed", "closed"])
def test_who_is_gone_leaves_the_queue(node: WaitingNode, how: str) -> None:
    run = node.start(FOREVER, *range(ALL_GPUS))
    gone = node.wait_for(1)
    stays = node.wait_for(1)
    waits(node, gone, stays)
    if how == "killed":
        gone.process.kill()
    else:
        gone.connection.close()
    waits(node, stays)
    run.process.kill()
    stays.until("granted")
    assert set(node.holders().values()) == {stays.owner}
    assert node.faults() == []


def test_who_is_stopped_lets_others_have_the_gpus(node: WaitingNode) -> None:
    run = node.start(FOREVER, *range(ALL_GPUS))
    stopped = node.wait_for(ALL_GPUS, uid=NOBODY)
    other = node.wait_for(ALL_GPUS)
    waits(node, stopped, other)
    stopped.process.send_signal(signal.SIGSTOP)
    run.process.kill()
    other.until("granted")
    # It waits again when it goes on.
    stopped.process.send_signal(signal.SIGCONT)
    waits(node, stopped)
    other.process.kill()
    stopped.until("granted")


def test_who_says_something_while_it_waits_is_let_go(node: WaitingNode) -> None:
    node.start(FOREVER, *range(ALL_GPUS))
    client = node.wait_for(1)
    waits(node, client)
    client.connection.sendall(b"x" * 1000)
    poll_until(lambda: node.queue() == [])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_places_survive_the_watcher(node: WaitingNode, number: signal.Signals) -> None:
    run = node.start(FOREVER, *range(ALL_GPUS))
    first, second = node.wait_for(ALL_GPUS), node.wait_for(1)
    waits(node, first, second)
    before = node.watcher()
    os.kill(before, number)
    poll_until(lambda: not is_alive(before))
    # Their connections have ended without an answer: they ask again, in any order.
    for one in (first, second):
        while one.next():
            pass
    again = {one.owner: node.wait_for(again=one) for one in (second, first)}
    assert node.queue() == [first.owner, second.owner]
    run.process.kill()
    assert len(again[first.owner].until("granted")) == ALL_GPUS
    assert node.holders().keys() == set(range(ALL_GPUS))


@pytest.mark.parametrize("type_", [RUN, MANUAL])
def test_a_grant_whose_maker_is_killed_is_told_by_the_next(node: WaitingNode, type_: str) -> None:
    with node.answers_held_up() as maker:
        client = node.wait_for(2, type_=type_)
        os.kill(maker(), signal.SIGKILL)
    granted = client.until("granted")
    assert node.holders() == dict.fromkeys(granted, client.owner)
    assert node.faults() == []


def test_a_grant_whose_watcher_is_killed_is_told_who_asks_again(node: WaitingNode) -> None:
    with node.answers_held_up() as maker:
        client = node.wait_for(2)
        made_by = maker()
        os.kill(node.watcher(), signal.SIGKILL)
        poll_until(lambda: not is_alive(made_by))
        while client.next():
            pass
    held = node.holders()
    assert set(held.values()) == {client.owner}
    assert sorted(node.wait_for(again=client).until("granted")) == sorted(held)


@pytest.mark.parametrize("type_", [RUN, MANUAL])
def test_a_grant_to_a_client_that_has_gone_is_released(node: WaitingNode, type_: str) -> None:
    with node.answers_held_up() as maker:
        client = node.wait_for(2, type_=type_)
        maker()
        assert len(node.holders()) == 2
        client.process.kill()
        # Until it has ended it is there to be told.
        client.process.wait(10)
    poll_until(lambda: node.holders() == {})
    poll_until(lambda: node.watchers() == [])
    assert node.files.owners() == set()


def test_who_asks_again_is_told_what_it_has(node: WaitingNode) -> None:
    """The answer was lost: with the watcher, or with the process that got the GPUs for it."""
    client = node.wait_for(2)
    granted = client.until("granted")
    again = node.wait_for(again=client)
    assert again.until("granted") == granted
    assert node.holders() == dict.fromkeys(granted, client.owner)


def test_who_asks_anew_keeps_its_place(node: WaitingNode) -> None:
    run = node.start(FOREVER, *range(ALL_GPUS))
    first, second = node.wait_for(1), node.wait_for(ALL_GPUS)
    waits(node, first, second)
    again = node.wait_for(again=first)
    while first.next():
        pass
    waits(node, first, second)
    run.process.kill()
    again.until("granted")


def test_the_queue_and_grants_go_on_without_the_store(node: WaitingNode) -> None:
    run = node.start(FOREVER, *range(ALL_GPUS))
    first, second = node.wait_for(1), node.wait_for(1)
    waits(node, first, second)
    node.server.kill()
    run.process.kill()
    for one in (first, second):
        assert len(one.until("granted")) == 1
    node.server.start()
    poll_until(lambda: set(node.holders().values()) == {first.owner, second.owner})


def test_a_store_that_forgets_changes_no_turn(node: WaitingNode) -> None:
    run = node.start(FOREVER, *range(ALL_GPUS))
    first, second = node.wait_for(ALL_GPUS), node.wait_for(ALL_GPUS)
    waits(node, first, second)
    node.server.client().flushall()
    waits(node, first, second)
    run.process.kill()
    first.until("granted")
    waits(node, second)


def test_a_store_that_is_silent_keeps_no_time(node: WaitingNode) -> None:
    node.start(FOREVER, *range(ALL_GPUS))
    client = node.wait_for(1, wait_s=3.0)
    waits(node, client)
    node.server.pause()
    client.until("refused")
    node.server.resume()


@pytest.mark.parametrize("content", [b"\xff\0", b"{}\0", b"[" * 100_000 + b"\0", b"x" * 300_000])
def test_garbage_at_the_socket_costs_nothing(node: WaitingNode, content: bytes) -> None:
    import socket

    from canhazgpu.agent.socket_files import agent_directory

    path = agent_directory(node.state_dir) / "watcher.sock"
    with socket.socket(socket.AF_UNIX) as hostile:
        hostile.connect(str(path))
        hostile.sendall(content)
        client = node.wait_for(1)
        client.until("granted")
    assert node.faults() == []


def test_many_are_served_one_after_the_other(node: WaitingNode) -> None:
    clients = [node.wait_for(1, uid=NOBODY if number % 2 else 0) for number in range(16)]
    for one in clients:
        one.until("granted")
        one.process.kill()
    poll_until(lambda: node.holders() == {})
    assert node.queue() == []
    poll_until(lambda: node.watchers() == [])
    assert node.faults() == []
    assert Path(f"/proc/{node.host}").exists()


def test_one_user_waits_only_so_often(node: WaitingNode) -> None:
    """Those that are stopped count, too: they have left the queue, and may come back."""
    two = UserLimits(max_waiters=2)
    run = node.start(FOREVER, *range(ALL_GPUS))
    first, second = (node.wait_for(1, uid=NOBODY, limits=two) for _ in range(2))
    waits(node, first, second)
    first.process.send_signal(signal.SIGSTOP)
    third = node.wait_for(1, uid=NOBODY, limits=two)
    assert "2 requests of yours wait already" in third.until("failed")
    assert third.next() == {}
    # Who asks again has its own place, and others have theirs.
    again = node.wait_for(again=second)
    other = node.wait_for(1, limits=two)
    poll_until(lambda: node.queue()[-2:] == [second.owner, other.owner])
    first.process.kill()
    poll_until(lambda: node.queue() == [second.owner, other.owner])
    fourth = node.wait_for(1, uid=NOBODY, limits=two)
    run.process.kill()
    for one in (again, other, fourth):
        assert one.until("granted")
    assert node.faults() == []


def test_nobody_gets_more_than_the_site_allows_when_the_turn_comes(node: WaitingNode) -> None:
    run = node.start(FOREVER, *range(ALL_GPUS))
    clients = [node.wait_for(2, uid=NOBODY, limits=UserLimits(max_gpus=3)) for _ in range(2)]
    other = node.wait_for(1)
    waits(node, *clients, other)
    # Both wait, as if they had been let in at once: what counts is what is held.
    run.process.kill()
    assert clients[0].until("granted")
    assert "you hold 2, wait for 0, and ask for 2 more" in clients[1].until("failed")
    assert other.until("granted")
