"""`canhazgpu release` with a ledger in memory."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fakes.memory_ledger import (
    ALICE,
    BOB,
    ROOT,
    gpu,
    job,
    ledger,
    manual,
    run,
    running,
    scan,
    uuid,
    view,
)
from fakes.read_only_ledger import FakeProbe

from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.values import Claim, Reservation


def test_all_that_one_reserved_by_hand_is_released_and_nothing_else() -> None:
    # Given reservations of alice by hand, of her command and her job, and one of bob
    store = ledger(view(manual(0), running(1), job(2), manual(3, BOB)))

    # If alice releases
    result = run(store, "release", role=Role.WRITE)

    # I expect only the first to be free
    assert (result.exit_code, result.stdout) == (0, "released GPU 0 of n1: alice (manual)\n")
    assert store.changes == [
        ("release", "n1", "manual:alice", "released by its owner", (uuid(0),), "")
    ]


def test_each_of_several_reservations_is_said() -> None:
    store = ledger(view(manual(0), manual(2), manual(1, token="manual:other")))

    result = run(store, "release")

    assert result.stdout.splitlines() == [
        "released GPU 0, 2 of n1: alice (manual)",
        "released GPU 1 of n1: alice (manual)",
    ]


def test_named_gpus_alone_are_released() -> None:
    store = ledger(view(manual(0), manual(1), manual(2)))

    result = run(store, "release", "--gpu-ids", f"2,{uuid(0)}")

    assert result.exit_code == 0
    assert list(store.views["n1"].reservations) == [uuid(1)]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ("0,3", "GPU 3 of n1 is reserved by bob (manual), who alone may release it;"),
        ("0,1", "GPU 1 of n1 is held by your running command (PID 4711): end it instead, or add"),
        ("0,2", "GPU 2 of n1 is held by your job 12: it is released when the job ends"),
        ("0,9", "there is no GPU 9 on n1; it has 0-3"),
    ],
)
def test_where_one_may_not_be_released_none_is(ids: str, words: str) -> None:
    store = ledger(view(manual(0), running(1), job(2), manual(3, BOB)))

    result = run(store, "release", "--gpu-ids", ids)

    assert (result.exit_code, result.stdout, store.changes) == (2, "", [])
    assert result.stderr.startswith(f"Error: {words}")


def test_another_users_names_what_an_administrator_can_do() -> None:
    result = run(ledger(view(manual(0, BOB))), "release", "--gpu-ids", "0")

    assert "'canhazgpu admin release'" in result.stderr


@pytest.mark.parametrize("index", [2, 3])
def test_force_releases_no_job_and_nobody_elses(index: int) -> None:
    store = ledger(view(job(2), running(3, BOB)))

    assert run(store, "release", "--force", "--gpu-ids", str(index)).exit_code == 2
    assert store.changes == []


def test_force_releases_ones_own_running_command() -> None:
    result = run(ledger(view(running(1))), "release", "--force", "--gpu-ids", "1")

    assert (result.exit_code, result.stdout) == (0, "released GPU 1 of n1: alice (run)\n")


def test_root_needs_admin_for_what_others_hold() -> None:
    assert run(ledger(view(manual(0))), "release", "--gpu-ids", "0", caller=ROOT).exit_code == 2


def test_who_one_is_is_not_told_by_the_environment() -> None:
    environ = {"USER": "bob", "LOGNAME": "bob", "SUDO_UID": "1002", "SUDO_USER": "bob"}
    store = ledger(view(manual(0, BOB)))

    result = run(store, "release", environ=environ)

    assert (result.exit_code, store.changes) == (0, [])
    assert "you have reserved no GPU" in result.stdout


def test_the_same_name_with_another_uid_is_somebody_else() -> None:
    claim = Claim("manual:x", "manual", "alice", 4242)
    store = ledger(view(Reservation(uuid(0), claim, 1.0)))

    assert run(store, "release", "--gpu-ids", "0").exit_code == 2


def test_an_unreadable_record_is_nobodys() -> None:
    claim = Claim("unreadable", "unknown", "unknown", None)
    store = ledger(view(Reservation(uuid(0), claim, 0.0)))

    assert run(store, "release", "--gpu-ids", "0").exit_code == 2
    assert run(store, "release").exit_code == 0
    assert store.changes == []


def test_nothing_to_release_is_no_error() -> None:
    result = run(ledger(view(running(1), running(2))), "release")

    assert result.exit_code == 0
    assert result.stdout == (
        "nothing to release: you have reserved no GPU of n1;"
        " your running commands hold GPU 1, 2 until they end\n"
    )


@pytest.mark.parametrize("left_s", [0.0, -5.0])
def test_what_has_expired_or_is_free_is_released_already(left_s: float) -> None:
    store = ledger(view(manual(0, left_s=left_s)))

    for ids in ("0", "1"):
        result = run(store, "release", "--gpu-ids", ids)
        assert (result.exit_code, store.changes) == (0, [])
        assert result.stdout == f"nothing to release: nobody holds GPU {ids} of n1\n"


def test_what_ends_meanwhile_is_not_said_to_be_released() -> None:
    store = ledger(view(manual(0)))
    store.release = lambda *_: []  # type: ignore[method-assign]

    result = run(store, "release")

    assert (result.exit_code, result.stdout) == (
        0,
        "nothing to release: you have reserved no GPU of n1\n",
    )


def test_an_index_is_the_one_of_now_and_not_of_the_last_scan() -> None:
    # Given a node whose GPUs have other indices since it was rebooted
    before = scan(replace(gpu(0), index=1), replace(gpu(1), index=0))
    store = ledger(view(manual(0), manual(1, BOB), scan=before))

    result = run(store, "release", "--gpu-ids", "0")

    assert (result.exit_code, result.stdout) == (0, "released GPU 0 of n1: alice (manual)\n")


def test_a_broken_driver_does_not_keep_anyone_from_releasing() -> None:
    broken = FakeProbe(fault="no driver")

    assert run(ledger(view(manual(0))), "release", probe=broken).exit_code == 0
    assert run(ledger(view(manual(0))), "release", "--gpu-ids", "0", probe=broken).exit_code == 0
    assert broken.events == ["start", "observe"]


def test_a_gpu_that_no_scan_shows_is_released_by_its_uuid() -> None:
    store = ledger(view(manual(7)))

    result = run(store, "release", "--gpu-ids", uuid(7))

    assert result.stdout == f"released GPU {uuid(7)} of n1: alice (manual)\n"


def test_another_node_is_not_scanned() -> None:
    probe = FakeProbe()
    store = ledger(view(manual(1), node="n2"))

    result = run(store, "release", "--node", "n2", "--gpu-ids", "1", probe=probe)

    assert result.stdout == "released GPU 1 of n2: alice (manual)\n"
    assert probe.events == []


def test_a_node_that_nobody_knows_is_refused() -> None:
    result = run(ledger(view()), "release", "--node", "nX")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "knows no node 'nX'" in result.stderr


def test_json_says_what_was_released() -> None:
    result = run(ledger(view(manual(0))), "release", "--json")

    assert json.loads(result.stdout) == {
        "node": "n1",
        "released": [
            {
                "gpu": "0",
                "uuid": uuid(0),
                "user": "alice",
                "type": "manual",
                "owner": "manual:alice",
            }
        ],
    }
    assert json.loads(run(ledger(view()), "release", "--json").stdout)["released"] == []


def test_a_malformed_list_is_refused_with_what_is_accepted() -> None:
    result = run(ledger(view()), "release", "--gpu-ids", "1,,3")

    assert result.exit_code == 2
    assert "accepted: indices as 0,3" in " ".join(result.stderr.split())


def test_hostile_names_stay_harmless() -> None:
    evil = "\x1b]0;owned\x07\x1b[2Jeve\u202e"
    claim = Claim("manual:x", "manual", evil, ALICE.uid)
    other = Claim("manual:y", "manual", evil, BOB.uid)
    store = ledger(view(Reservation(uuid(0), claim, 1.0), Reservation(uuid(1), other, 1.0)))

    refused = run(store, "release", "--gpu-ids", "1")
    done = run(store, "release")

    assert done.stdout == "released GPU 0 of n1: eve (manual)\n"
    assert "reserved by eve (manual)" in refused.stderr
    assert refused.stderr.strip().isprintable()
