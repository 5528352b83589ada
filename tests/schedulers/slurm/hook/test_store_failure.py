"""Hooks without their store, and with one that lost its memory: no GPU has two owners."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hook_jobs import free_observation, gpus_in_book, job_variables, node_events, owners_in_book
from servers.private_redis import PrivateRedis
from servers.redis_proxy import StoreProxy

from canhazgpu.ledger.grant_answers import GrantedGpus
from canhazgpu.ledger.local.notices import Notices
from canhazgpu.ledger.local.store_access import DEFAULT_WAIT_BUDGET_S
from canhazgpu.ledger.release_reasons import OVERRULED
from canhazgpu.ledger.values import Claim
from canhazgpu.people.revocations import revocations_from

pytestmark = pytest.mark.slow

NODE = "n1"
NEVER_S = 60.0
"""The time-out of a store that nobody must wait for so long; half of it is a hook that hangs."""


@pytest.fixture
def server(node: Any) -> Iterator[PrivateRedis]:
    """The node's store; whatever a test did to it, it can be stopped."""
    yield node.server
    if node.server.is_running():
        node.server.resume()


def snapshot(server: PrivateRedis) -> dict[bytes, bytes]:
    with redis.Redis(unix_socket_path=str(server.socket)) as direct:
        return {key: direct.dump(key) for key in direct.keys("*")}


def restore(server: PrivateRedis, old: dict[bytes, bytes]) -> None:
    with redis.Redis(unix_socket_path=str(server.socket)) as direct:
        direct.flushall()
        for key, dump in old.items():
            direct.restore(key, 0, dump)


def settle(node: Any) -> None:
    """Let the node tell the store all it has to hear, however slow this machine is just now."""
    journal = node.files / "run" / "journal"
    deadline = time.monotonic() + 60
    while len(journal.read_text().splitlines()) > 1:
        assert time.monotonic() < deadline
        node.forget_outage()
        node.run("epilog", **job_variables(999, "0"))


def test_jobs_start_and_end_without_the_store(node: Any, server: PrivateRedis) -> None:
    server.kill()
    node.run("prolog", **job_variables(1, "0,1"))
    node.run("prolog", **job_variables(2, "2,3"))
    assert set(owners_in_book(node).values()) == {"job:c1:1:0", "job:c1:2:0"}
    assert len(owners_in_book(node)) == 4
    node.run("epilog", **job_variables(1, "0,1"))
    assert set(owners_in_book(node).values()) == {"job:c1:2:0"}

    server.start()
    node.forget_outage()
    node.run("prolog", **job_variables(3, "0,1"))
    held = node.owners_by_gpu()
    assert sorted(held.values()) == ["job:c1:2:0"] * 2 + ["job:c1:3:0"] * 2
    assert held == owners_in_book(node)
    told = [
        (one.kind, one.claim.owner) for one in node_events(node, "grant", "release") if one.claim
    ]
    assert told == [
        *[("grant", "job:c1:1:0")] * 2,
        *[("grant", "job:c1:2:0")] * 2,
        *[("release", "job:c1:1:0")] * 2,
        *[("grant", "job:c1:3:0")] * 2,
    ]


def test_a_store_that_is_stopped_delays_the_first_hook_alone(
    node: Any, server: PrivateRedis, request: pytest.FixtureRequest
) -> None:
    server.pause()
    took_s = []
    for number in range(3):
        began = time.monotonic()
        node.run("prolog", **job_variables(number + 1, str(number)))
        took_s.append(time.monotonic() - began)
    request.node.user_properties.append(("seconds", took_s))
    assert sorted(owners_in_book(node).values()) == [f"job:c1:{number}:0" for number in (1, 2, 3)]
    lost = [line for line in node.log().splitlines() if "event=store-lost" in line]
    assert len(lost) == 1

    server.resume()
    node.forget_outage()
    node.run("epilog", **job_variables(1, "0"))
    assert node.owners_by_gpu() == owners_in_book(node)
    assert sorted(owners_in_book(node).values()) == ["job:c1:2:0", "job:c1:3:0"]


@pytest.mark.parametrize("node", ["canhazgpu"], indirect=True)
@pytest.mark.parametrize("answers", range(4))
@pytest.mark.parametrize("hook", ["prolog", "epilog"])
def test_a_store_that_falls_silent_at_any_moment_is_waited_for_once(
    node: Any, hook: str, answers: int
) -> None:
    node.run("prolog", **job_variables(1, "0"))
    with StoreProxy(node.server) as proxy:
        proxy.answers_left = answers
        node.configure(store={"url": proxy.url, "timeout_s": NEVER_S})
        began = time.monotonic()
        node.run(hook, **job_variables(2 if hook == "prolog" else 1, "0"))
        assert time.monotonic() - began < NEVER_S / 2
        assert proxy.connections == 1
    # Three round trips are all that a prolog takes, and four an epilog.
    silent = answers < (3 if hook == "prolog" else 4)
    assert node.log().count("event=store-lost") == int(silent)
    kept = {"job:c1:1:0", "job:c1:2:0"} if hook == "prolog" else set()
    assert set(owners_in_book(node).values()) == kept

    node.configure(store={"url": node.server.url})
    node.forget_outage()
    settle(node)
    assert node.owners_by_gpu() == owners_in_book(node)
    assert set(node.owners_by_gpu().values()) == kept


@pytest.mark.parametrize("node", ["canhazgpu"], indirect=True)
def test_a_store_whose_host_drops_every_packet_is_waited_for_once(node: Any) -> None:
    with socket.socket() as silent, socket.socket() as first, socket.socket() as second:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        # The kernel drops whoever comes once the queue of those who were not accepted is full.
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(silent.getsockname())
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        node.configure(store={"url": url, "timeout_s": NEVER_S})
        began = time.monotonic()
        for number in (1, 2):
            node.run("prolog", **job_variables(number, str(number)))
        assert time.monotonic() - began < NEVER_S / 2
    assert sorted(owners_in_book(node).values()) == ["job:c1:1:0", "job:c1:2:0"]
    assert node.log().count("event=store-lost") == 1
    assert "took too long" in node.log()


def test_what_the_stopped_store_was_asked_and_does_later_is_put_right(
    node: Any, server: PrivateRedis
) -> None:
    """A reservation of perhaps other GPUs, that the store makes after its asker went away."""
    server.pause()
    node.run("prolog", **job_variables(2, "0,1"))
    server.resume()
    late = Claim("job:c1:2:0", "slurm", "ann", 1000, "2")
    node.ledger.reserve_given(late, ["GPU-other"], free_observation("GPU-other"))
    node.forget_outage()
    node.run("prolog", **job_variables(3, "2"))
    assert node.owners_by_gpu() == owners_in_book(node)
    assert len(gpus_in_book(node, "job:c1:2:0")) == 2


def test_a_store_that_forgot_all_is_told_again_before_it_grants(
    node: Any, server: PrivateRedis
) -> None:
    node.run("prolog", **job_variables(1, "0,1"))
    before = node.owners_by_gpu()
    with server.client() as direct:
        direct.flushall()
    node.run("prolog", **job_variables(2, "2,3"))
    held = node.owners_by_gpu()
    assert {gpu: owner for gpu, owner in held.items() if owner == "job:c1:1:0"} == before
    assert sorted(held.values()) == ["job:c1:1:0"] * 2 + ["job:c1:2:0"] * 2
    assert node.log().count("event=restored") == 1


def test_a_gpu_of_a_running_job_is_refused_whatever_the_store_says(
    node: Any, server: PrivateRedis
) -> None:
    node.run("prolog", **job_variables(1, "0,1,2,3"))
    with server.client() as direct:
        direct.flushall()
    node.run("prolog", **job_variables(2, "0"))
    assert set(node.owners_by_gpu().values()) == {"job:c1:1:0"}
    assert len(node.owners_by_gpu()) == 4
    assert "job 2:" in node.log()


def test_an_old_snapshot_is_put_right(node: Any, server: PrivateRedis) -> None:
    """The store as it was while job 1 held the GPUs, which job 2 has now."""
    node.run("prolog", **job_variables(1, "0,1"))
    old = snapshot(server)
    node.run("epilog", **job_variables(1, "0,1"))
    node.run("prolog", **job_variables(2, "0,1"))
    mine = gpus_in_book(node, "job:c1:2:0")
    restore(server, old)
    assert set(node.owners_by_gpu().values()) == {"job:c1:1:0"}

    node.run("prolog", **job_variables(3, "2"))
    assert {gpu for gpu, owner in node.owners_by_gpu().items() if owner == "job:c1:2:0"} == mine


def test_a_run_that_a_forgetful_store_put_on_a_jobs_gpu_loses_it(
    node: Any, server: PrivateRedis
) -> None:
    node.run("prolog", **job_variables(1, "0,1"))
    gpu = min(node.owners_by_gpu())
    with server.client() as direct:
        direct.flushall()
    run = Claim("run:aa", "run", "eve", 1002)
    assert node.ledger.reserve_given(run, [gpu], free_observation(gpu)) == GrantedGpus((gpu,))

    node.run("prolog", **job_variables(2, "2"))
    assert node.owners_by_gpu()[gpu] == "job:c1:1:0"
    (line,) = [line for line in node.log().splitlines() if "event=overruled" in line]
    assert f"gpu={gpu}" in line and "lost_by=run:aa" in line and "kept_by=job:c1:1:0" in line
    (lost,) = [one for one in node_events(node, "release") if one.claim and one.claim.user == "eve"]
    assert lost.reason == OVERRULED
    (told,) = revocations_from(1002, "n1", node_events(node, "release"))
    assert (told.gpus, told.by) == ((gpu,), "")
    if os.geteuid() == 0:
        (notice,) = Notices(node.files / "run").take(1002)
        assert (notice.gpus, notice.reason) == (f"GPU {gpu}", OVERRULED)


def test_a_reservation_of_a_person_counts_without_the_store(
    node: Any, server: PrivateRedis
) -> None:
    manual = Claim("manual:aa", "manual", "eve", 1002, duration_s=3600)
    first = node.uuid_of_position(0)
    node.ledger.reserve_given(manual, [first], free_observation(first))
    node.run("prolog", **job_variables(1, "1"))
    server.kill()
    node.run("prolog", **job_variables(2, "0"))
    assert gpus_in_book(node, "manual:aa") == {first}
    by_slurm = node.assignment == "slurm"
    assert len(gpus_in_book(node, "job:c1:2:0")) == (0 if by_slurm else 1)
    assert ("is reserved by eve (manual" in node.log()) == by_slurm


def test_a_reservation_of_a_person_comes_back_unless_it_was_released(
    node: Any, server: PrivateRedis
) -> None:
    for name in ("kept", "released"):
        claim = Claim(f"manual:{name}", "manual", "eve", 1002, duration_s=3600)
        place = 3 if name == "kept" else 2
        gpu = node.uuid_of_position(place)
        node.ledger.reserve_given(claim, [gpu], free_observation(gpu))
    (before,) = [one for one in node.reservations() if one.claim.owner == "manual:kept"]
    node.run("prolog", **job_variables(1, "0"))
    with server.client() as direct:
        direct.delete("canhazgpu:{n1}:reservations", "canhazgpu:{n1}:history")
    # As if the second had been released after the store came back.
    claim = Claim("manual:released", "manual", "eve", 1002, duration_s=3600)
    gpu = node.uuid_of_position(2)
    node.ledger.reserve_given(claim, [gpu], free_observation(gpu))
    node.ledger.release(NODE, "manual:released", "no need")

    node.run("prolog", **job_variables(2, "1"))
    assert sorted(set(node.owners_by_gpu().values())) == ["job:c1:1:0", "job:c1:2:0", "manual:kept"]
    (after,) = [one for one in node.reservations() if one.claim.owner == "manual:kept"]
    assert abs((after.expires_at or 0) - (before.expires_at or 0)) < 0.01


@pytest.mark.parametrize("stage", ["sent", "half"])
def test_a_crash_while_the_store_is_told_doubles_and_loses_nothing(
    node: Any, server: PrivateRedis, stage: str
) -> None:
    server.kill()
    for number in (1, 2, 3):
        node.run("prolog", **job_variables(number, str(number)))
    node.run("epilog", **job_variables(1, "1"))
    server.start()
    node.forget_outage()
    change = {
        # The store has them all, and the node does not know.
        "sent": "from canhazgpu.ledger.local.book.book_transaction import BookTransaction\n"
        "BookTransaction.drop_recorded = die",
        # The store has some, and the node knows.
        "half": "from canhazgpu.ledger.local import reconcile\nreconcile.MAX_BATCH = 2\n"
        "from canhazgpu.ledger.store.ledger import RedisLedger\n"
        "first = RedisLedger.record_entries\n"
        "calls = []\n"
        "RedisLedger.record_entries = lambda *given: (\n"
        "    die() if calls else (calls.append(1), first(*given))[1]\n"
        ")",
    }[stage]
    die = "import os\ndie = lambda *a, **k: os.kill(os.getpid(), 9)\n"
    run = "\nfrom canhazgpu.prolog.main import main\nmain()\n"
    killed = node.python("-c", die + change + run, environ=node.environ(**job_variables(4, "0")))
    assert killed.returncode == -9, killed.stderr

    node.run("prolog", **job_variables(4, "0"))
    assert node.owners_by_gpu() == owners_in_book(node)
    told = [
        (one.kind, one.claim.job_id) for one in node_events(node, "grant", "release") if one.claim
    ]
    assert told == [
        ("grant", "1"),
        ("grant", "2"),
        ("grant", "3"),
        ("release", "1"),
        ("grant", "4"),
    ]
    jobs = [one.claim.job_id for one in node_events(node, "prolog", "epilog") if one.claim]
    assert jobs == ["1", "2", "3", "1", "4"]


@pytest.mark.slow
def test_twenty_prologs_at_once_do_not_wait_one_after_the_other(
    node: Any, server: PrivateRedis, request: pytest.FixtureRequest
) -> None:
    node.configure(store={"timeout_s": NEVER_S})
    server.pause()
    took_s = _twenty_prologs_s(node, 1)
    lost = node.log().count("event=store-lost")
    server.resume()
    # What twenty prologs take here and now, without any wait.
    usual_s = _twenty_prologs_s(node, 101)
    request.node.user_properties.append(("seconds", took_s))
    request.node.user_properties.append(("seconds with the store", usual_s))
    request.node.user_properties.append(("found the outage themselves", lost))
    # One after the other they would wait 20 times as long as one does.
    assert took_s < 3 * usual_s + 20 * DEFAULT_WAIT_BUDGET_S * 0.8
    assert 1 <= lost <= 20
    owners = owners_in_book(node)
    assert len(owners) == 4
    assert len(set(owners.values())) == 4

    server.resume()
    node.forget_outage()
    for number in range(1, 21):
        node.run("epilog", **job_variables(number, str(number % 4)))
    settle(node)
    assert node.owners_by_gpu() == owners_in_book(node) == {}


@pytest.mark.slow
def test_after_its_time_an_outage_is_tried_by_one_alone(node: Any, server: PrivateRedis) -> None:
    node.configure(store={"retry_after_s": 0.01})
    server.pause()
    node.run("prolog", **job_variables(1, "0"))
    with (node.files / "run" / ".store-trial.lock").open("a") as trial:
        # Somebody is at it: nobody else waits, or finds out for themselves.
        fcntl.flock(trial, fcntl.LOCK_EX)
        node.run("prolog", **job_variables(2, "1"))
        node.run("epilog", **job_variables(1, "0"))
    assert node.log().count("event=store-lost") == 1
    assert set(owners_in_book(node).values()) == {"job:c1:2:0"}
    node.run("epilog", **job_variables(2, "1"))
    assert node.log().count("event=store-lost") == 2


def test_where_the_node_may_not_decide_jobs_are_sent_back(node: Any, server: PrivateRedis) -> None:
    node.configure(store={"on_failure": "fail"})
    server.kill()
    node.run("prolog", **job_variables(1, "0,1"))
    assert "cannot reach the store" in node.log()
    assert (node.files / "run" / "store-outage").exists()  # for people to read
    server.start()
    node.run("epilog", **job_variables(1, "0,1"))
    assert not (node.files / "run" / "store-outage").exists()
    assert node.owners_by_gpu() == {}
    assert node.record_files() == set()


def test_without_store_and_book_nothing_is_promised(node: Any, server: PrivateRedis) -> None:
    server.kill()
    (node.files / "run" / ".book.json.new").mkdir(parents=True)
    node.run("prolog", **job_variables(1, "0,1"))
    assert "cannot keep the node's book" in node.log()
    assert "12.env" not in node.record_files()


def test_the_epilog_releases_where_no_book_can_be_kept(node: Any) -> None:
    node.run("prolog", **job_variables(1, "0,1"))
    (node.files / "run" / ".book.json.new").mkdir()
    node.run("epilog", **job_variables(1, "0,1"))
    assert node.owners_by_gpu() == {}
    assert "event=no-book" in node.log()


def _twenty_prologs_s(node: Any, first: int) -> float:
    """Run the prologs of twenty jobs at once; returns how long that took, in seconds."""
    began = time.monotonic()
    running = [
        node.start("prolog", **job_variables(number, str(number % 4)))
        for number in range(first, first + 20)
    ]
    for one in running:
        assert one.wait(120) == 0
    return time.monotonic() - began
