"""The queue: in order, woken at once, left by whoever gives up or dies."""

from __future__ import annotations

import os
import pty
import signal
import time
from collections.abc import Callable

import pytest
from hosts.shared_host import NODE, SharedHost, Started
from polling import poll_until

import fake_nvml

# Each of them starts several programs that wait for one another.
pytestmark = pytest.mark.slow


def waiting(host: SharedHost) -> list[str]:
    return [waiter.owner for waiter in host.view().queue]


def waiter(host: SharedHost, *words: str, gpus: int = 1, wait: str = "", **how: object) -> Started:
    """Start a run that has to wait, and return it once it is in the queue."""
    before = len(waiting(host))
    command = words or ("true",)
    options = ["--gpus", str(gpus), *(["--wait", wait] if wait else [])]
    process = host.start("run", *options, "--", *command, **how)
    poll_until(lambda: len(waiting(host)) == before + 1, "the run to join the queue")
    return process


def holder(host: SharedHost, gpus: int) -> Started:
    held = len(host.holders())
    process = host.start("run", "--gpus", str(gpus), "--", "sleep", "60")
    poll_until(lambda: len(host.holders()) == held + gpus, "the run to have its GPUs")
    return process


def test_a_run_waits_for_its_gpus_and_gets_them_at_once(host: SharedHost) -> None:
    busy = holder(host, 2)
    late = waiter(host, "echo", "mine")
    assert late.poll() is None
    busy.kill()
    out, err = late.communicate(timeout=20)
    assert (out, late.returncode) == ("mine\n", 0)
    assert "waiting for 1 GPU on host1: next in the queue; held by root (run)" in err
    assert waiting(host) == []


def test_large_requests_are_not_starved_and_newcomers_do_not_overtake(host: SharedHost) -> None:
    # Given one free GPU, and somebody who waits for two
    busy = holder(host, 1)
    large = waiter(host, "sh", "-c", f"echo large >> {host.outputs}/order", gpus=2)
    # If somebody comes who would be content with the free one
    newcomer = host.call("run", "--nonblock", "--", "true")
    small = waiter(host, "sh", "-c", f"echo small >> {host.outputs}/order")
    # I expect both to wait for their turn
    assert newcomer.returncode == 75
    assert "1 other waits for GPUs of host1" in newcomer.stderr
    busy.kill()
    assert large.wait(60) == 0
    assert small.wait(60) == 0
    assert (host.outputs / "order").read_text() == "large\nsmall\n"


def test_the_first_come_is_the_first_served(host: SharedHost) -> None:
    busy = holder(host, 2)
    order = host.outputs / "order"
    later = [waiter(host, "sh", "-c", f"echo {n} >> {order}", gpus=2) for n in range(5)]
    busy.kill()
    assert [one.wait(30) for one in later] == [0] * 5
    assert order.read_text().split() == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_gives_up_leaves_the_queue(host: SharedHost, number: signal.Signals) -> None:
    holder(host, 2)
    late = waiter(host)
    late.send_signal(number)
    status = late.wait(60)
    assert status == -number
    assert waiting(host) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_gives_up_right_after_the_grant_keeps_nothing(
    host: SharedHost, number: signal.Signals
) -> None:
    # Given a second look that takes its time, and nobody's process that the reservation needs
    host.node.inject("nvmlDeviceGetCount", delay_ms=3000)
    late = host.start("reserve", "--duration", "1h")
    poll_until(host.holders, "the grant")
    late.send_signal(number)
    assert late.wait(60) == -number
    assert host.holders() == {}


def test_a_lease_shorter_than_a_heartbeat_costs_nobody_a_place(host: SharedHost) -> None:
    host.configure(run={"lease_s": 6.0, "heartbeat_s": 15.0})
    holder(host, 2)
    for _ in range(3):
        waiter(host)
    joined = [(one.owner, one.since) for one in host.view().queue]
    time.sleep(8)
    assert [(one.owner, one.since) for one in host.view().queue] == joined


def test_a_dead_waiter_is_dropped_at_once(host: SharedHost) -> None:
    busy = holder(host, 1)
    dead = waiter(host, gpus=2)
    late = waiter(host)
    dead.kill()
    dead.wait()
    # The one behind needs no more than the free GPU, and gets it although nobody released one.
    assert late.wait(60) == 0
    assert busy.poll() is None


def test_a_dead_owner_makes_room_for_who_waits(host: SharedHost) -> None:
    busy = holder(host, 2)
    (claim,) = {one.claim for one in host.view().reservations.values()}
    poll_until(lambda: all(len(o.claim.processes) > 1 for o in host.view().reservations.values()))
    (claim,) = {one.claim for one in host.view().reservations.values()}
    late = waiter(host)
    for process in claim.processes:
        os.kill(process.pid, signal.SIGKILL)
    busy.wait()
    assert late.wait(60) == 0


def test_who_waits_gets_a_gpu_that_an_intruder_left(host: SharedHost) -> None:
    with (
        fake_nvml.start_gpu_process(host.node.gpu(0), 8000, name="intruder"),
        fake_nvml.start_gpu_process(host.node.gpu(1), 8000, name="intruder"),
    ):
        late = waiter(host, wait="forever")
        time.sleep(0.5)
        assert late.poll() is None
    _, err = late.communicate(timeout=20)
    assert late.returncode == 0
    assert "2 GPUs in use without reservation" in err


def test_an_expired_reservation_is_no_obstacle(host: SharedHost) -> None:
    reserved = host.call("reserve", "--gpus", "2", "--duration", "10s")
    assert reserved.returncode == 0
    late = waiter(host)
    assert late.wait(60) == 0


def test_waiting_has_an_end(host: SharedHost) -> None:
    holder(host, 2)
    done = host.call("run", "--wait", "1s", "--", "true")
    assert done.returncode == 75
    assert "Not enough GPUs available. Requested: 1, Available: 0" in done.stderr
    assert waiting(host) == []


def test_a_line_for_each_change_and_not_for_each_look(host: SharedHost) -> None:
    holder(host, 2)
    late = waiter(host)
    time.sleep(2.5)
    late.send_signal(signal.SIGTERM)
    _, err = late.communicate(timeout=20)
    assert len(err.splitlines()) == 1


def test_on_a_terminal_the_line_is_updated_in_place(host: SharedHost) -> None:
    holder(host, 2)
    primary, secondary = pty.openpty()
    late = waiter(host, stderr=secondary)
    os.close(secondary)
    time.sleep(1)
    late.send_signal(signal.SIGTERM)
    late.wait(60)
    shown = os.read(primary, 65536).decode()
    os.close(primary)
    assert "\r\x1b[K" in shown
    assert "\n" not in shown
    # Nothing is left of it.
    assert shown.endswith("\r\x1b[K")


def test_who_waits_outlives_a_restart_of_the_store(make_host: Callable[..., SharedHost]) -> None:
    host = make_host(1, persist=True)
    busy = holder(host, 1)
    late = waiter(host, "echo", "mine")
    host.redis.kill()
    time.sleep(1.5)
    host.redis.start()
    busy.kill()
    out, err = late.communicate(timeout=30)
    assert (late.returncode, out) == (0, "mine\n")
    assert "still waiting, without the ledger for now" in err


def test_a_manual_reservation_waits_its_turn_too(host: SharedHost) -> None:
    busy = holder(host, 2)
    late = host.start("reserve", "--gpus", "2", "--duration", "1h", "--short")
    poll_until(lambda: len(waiting(host)) == 1)
    busy.kill()
    out, _ = late.communicate(timeout=20)
    assert sorted(out.strip().split(",")) == sorted(host.uuids())
    assert {one.claim.type for one in host.view().reservations.values()} == {"manual"}


def test_a_waiter_of_a_lost_node_leaves_by_its_lease(host: SharedHost) -> None:
    # Given a waiter of whom only the ledger knows
    from canhazgpu.ledger.values import Waiter

    host.ledger().join_queue(NODE, Waiter("run:lost", "eve", 1, 1, lease_s=8.0))
    assert host.call("run", "--nonblock", "--", "true").returncode == 75
    # I expect it gone once its lease is over
    assert host.call("run", "--wait", "10s", "--", "true").returncode == 0


def test_who_wants_what_is_quarantined_keeps_nobody_waiting(host: SharedHost) -> None:
    # Given somebody at the head who waits for both GPUs, and one behind
    busy = holder(host, 2)
    large = waiter(host, gpus=2)
    small = waiter(host)
    # If one of the GPUs is held back
    host.ledger().quarantine(NODE, host.uuids()[0], "broken fan", "root")
    busy.kill()
    # I expect the first to be told, and the other to be served
    _, err = large.communicate(timeout=20)
    assert large.returncode == 75
    assert "is quarantined: broken fan" in err
    assert small.wait(60) == 0
    assert host.call("run", "--gpu-ids", "0", "--", "true").returncode == 75
    assert waiting(host) == []


def test_a_stopped_waiter_keeps_nobody_waiting_and_joins_again(host: SharedHost) -> None:
    busy = holder(host, 2)
    stopped = waiter(host)
    late = waiter(host)
    stopped.send_signal(signal.SIGSTOP)
    busy.kill()
    assert late.wait(60) == 0
    assert stopped.poll() is None
    stopped.send_signal(signal.SIGCONT)
    assert stopped.wait(60) == 0
    assert waiting(host) == []
