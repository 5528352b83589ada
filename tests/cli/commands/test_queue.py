"""`canhazgpu queue` with a ledger in memory."""

from __future__ import annotations

import json

from fakes.memory_ledger import ledger, run, uuid, view
from fakes.read_only_ledger import NOW

from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.values import Waiter
from canhazgpu.node.process_id import ProcessId


def waiter(
    user: str, count: int, *gpus: str, waited_s: float = 90.0, silent_s: float = 1.0
) -> Waiter:
    return Waiter(
        *(f"run:{user}", user, 1001, count, gpus),
        processes=(ProcessId(4711, 1),),
        since=NOW - waited_s,
        renewed_at=NOW - silent_s,
    )


def test_who_waits_in_order_for_what_and_since_when() -> None:
    first = view(queue=(waiter("alice", 2), waiter("bob", 0, uuid(3), uuid(1), waited_s=5)))
    second = view(node="n2", queue=(waiter("carol", 1, waited_s=3700),))

    result = run(ledger(first, view(node="n3"), second), "queue", role=Role.READ)

    assert (result.exit_code, result.stderr) == (0, "")
    assert [" ".join(line.split()) for line in result.stdout.splitlines()] == [
        "NODE POSITION USER WAITS FOR TYPE WAITING",
        "n1 1 alice 2 GPUs run 1m 30s",
        "n1 2 bob GPU 1, 3 run 5s",
        "n2 1 carol 1 GPU run 1h 1m 40s",
    ]
    starts = {line.find("run") for line in result.stdout.splitlines()[1:]}
    assert starts == {result.stdout.splitlines()[0].find("TYPE")}


def test_one_node_alone() -> None:
    store = ledger(view(queue=(waiter("alice", 2),)), view(node="n2", queue=(waiter("bob", 1),)))

    assert "alice" not in run(store, "queue", "--node", "n2").stdout


def test_nobody_waits() -> None:
    assert run(ledger(view()), "queue").stdout == "nobody waits\n"


def test_a_node_that_nobody_knows_is_refused() -> None:
    result = run(ledger(view()), "queue", "--node", "n1", "--node", "nX")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "knows no node 'nX'" in result.stderr


def test_who_gave_no_sign_of_life_has_left() -> None:
    dead = waiter("alice", 2, silent_s=60.0)

    result = run(ledger(view(queue=(dead, waiter("bob", 1)))), "queue")

    assert "alice" not in result.stdout
    assert "n1   1        bob" in result.stdout


def test_json() -> None:
    store = ledger(view(queue=(waiter("bob", 0, uuid(3), uuid(1)),)))

    assert json.loads(run(store, "queue", "--json").stdout) == {
        "generated_at": "2023-11-14T22:13:20Z",
        "nodes": [
            {
                "node": "n1",
                "queue": [
                    {
                        "position": 1,
                        "user": "bob",
                        "uid": 1001,
                        "owner": "run:bob",
                        "count": 2,
                        "mig_profile": None,
                        "gpus": [uuid(3), uuid(1)],
                        "since": "2023-11-14T22:11:50Z",
                        "pids": [4711],
                    }
                ],
            }
        ],
    }
    assert json.loads(run(ledger(), "queue", "--json").stdout) == {
        "generated_at": None,
        "nodes": [],
    }


def test_hostile_names_stay_on_their_line() -> None:
    evil = "\x1b[2J\x1b]0;owned\x07eve\nn1 1 root"

    result = run(ledger(view(queue=(waiter(evil, 1),))), "queue")

    assert len(result.stdout.splitlines()) == 2
    assert all(line.isprintable() for line in result.stdout.splitlines())
