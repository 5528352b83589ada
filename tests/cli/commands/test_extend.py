"""`canhazgpu extend` with a ledger in memory."""

from __future__ import annotations

import json

import pytest
from fakes.memory_ledger import ALICE, BOB, ROOT, job, ledger, manual, run, running, uuid, view

from canhazgpu.ledger.values import Claim, Reservation

BOUND = {"CANHAZGPU_RUN_MAX_RESERVE_S": "3600"}


def test_all_that_one_reserved_for_a_time_is_extended() -> None:
    store = ledger(view(manual(0), manual(1, BOB), running(2), job(3)))

    result = run(store, "extend", "--duration", "1h")

    assert (result.exit_code, result.stdout) == (0, "GPU 0 of n1: expires in 1h 10m 0s\n")
    assert store.changes == [("extend", "n1", "manual:alice", 3600.0, (uuid(0),))]


def test_named_gpus_alone_are_extended() -> None:
    store = ledger(view(manual(0), manual(1)))

    result = run(store, "extend", "--duration", "30m", "--gpu-ids", "1")

    assert result.stdout == "GPU 1 of n1: expires in 40m 0s\n"
    assert store.changes == [("extend", "n1", "manual:alice", 1800.0, (uuid(1),))]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ("0,1", "GPU 1 of n1 is reserved by bob (manual), who alone may extend it"),
        ("0,2", "GPU 2 of n1 is held by your running command, which has no end to extend"),
        ("0,3", "GPU 3 of n1 is not reserved; reserve it with 'canhazgpu reserve'"),
    ],
)
def test_where_one_may_not_be_extended_none_is(ids: str, words: str) -> None:
    store = ledger(view(manual(0), manual(1, BOB), running(2)))

    result = run(store, "extend", "--duration", "1h", "--gpu-ids", ids)

    assert (result.exit_code, result.stdout, store.changes) == (2, "", [])
    assert result.stderr.startswith(f"Error: {words}")


@pytest.mark.parametrize("left_s", [0.0, -1.0])
def test_what_has_expired_cannot_be_extended(left_s: float) -> None:
    store = ledger(view(manual(0, left_s=left_s)))

    result = run(store, "extend", "--duration", "1h")

    assert (result.exit_code, store.changes) == (2, [])
    assert "you hold no reservation for a time on n1" in result.stderr


def test_what_has_no_end_is_not_extended() -> None:
    claim = Claim("manual:x", "manual", "alice", ALICE.uid)
    store = ledger(view(Reservation(uuid(0), claim, 1.0)))

    assert run(store, "extend", "--duration", "1h").exit_code == 2
    result = run(store, "extend", "--duration", "1h", "--gpu-ids", "0")
    assert "held by your reservation, which has no end to extend" in result.stderr


@pytest.mark.parametrize(("duration", "code"), [("50m", 0), ("51m", 2)])
def test_the_bound_counts_from_now(duration: str, code: int) -> None:
    # Given a bound of an hour, and a reservation with ten minutes left
    store = ledger(view(manual(0)))

    result = run(store, "extend", "--duration", duration, environ=BOUND)

    assert result.exit_code == code
    assert bool(store.changes) is (code == 0)
    assert ("at most 3000s can be added" in result.stderr) is (code == 2)


def test_the_longest_of_several_is_bound() -> None:
    store = ledger(view(manual(0), manual(1, left_s=4000.0, token="manual:other")))

    result = run(store, "extend", "--duration", "1m", environ=BOUND)

    assert (result.exit_code, store.changes) == (2, [])
    assert "at most 0s can be added" in result.stderr


def test_root_is_not_bound() -> None:
    store = ledger(view(manual(0, ROOT)))

    assert run(store, "extend", "--duration", "9d", caller=ROOT, environ=BOUND).exit_code == 0


def test_what_ends_meanwhile_is_an_error_beside_what_was_extended() -> None:
    store = ledger(view(manual(0), manual(1, token="manual:other")))
    extend = store.extend
    store.extend = (  # type: ignore[method-assign]
        lambda node, owner, *more: [] if owner == "manual:other" else extend(node, owner, *more)
    )

    result = run(store, "extend", "--duration", "1h")

    assert result.exit_code == 2
    assert result.stdout == "GPU 0 of n1: expires in 1h 10m 0s\n"
    assert "the reservation of GPU 1 is over: it was not extended" in result.stderr


def test_json_says_until_when() -> None:
    result = run(ledger(view(manual(0))), "extend", "--duration", "50m", "--json")

    assert json.loads(result.stdout) == {
        "node": "n1",
        "extended": [
            {
                "gpu": "0",
                "uuid": uuid(0),
                "owner": "manual:alice",
                "expires_at": "2023-11-14T23:13:20Z",
            }
        ],
    }


@pytest.mark.parametrize("given", ["30", "-1h", "", "1.5.2h", "soon"])
def test_a_malformed_duration_is_refused_with_what_is_accepted(given: str) -> None:
    store = ledger(view(manual(0)))

    result = run(store, "extend", "--duration", given)

    assert (result.exit_code, store.changes) == (2, [])
    assert "accepted: 90s, 30m, 2h, 1d, 0.5h or 1h30m" in " ".join(result.stderr.split())


def test_a_duration_is_needed() -> None:
    assert run(ledger(view()), "extend").exit_code == 2
